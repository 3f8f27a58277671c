/** What a user of the mesh can do. */

import { randomUUID } from "node:crypto";

import { toBinary, create } from "@bufbuild/protobuf";
import type { DescMessage, DescMethodUnary, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";

import { chatFrames, chatRequest, wholeReply, type ChatOptions, type Reply } from "./chat.js";
import { EchomeshError } from "./errors.js";
import type { Frame } from "./frames.js";
import { ConversationService, NewMessageSchema } from "./gen/echomesh/memory/v1/conversation_pb.js";
import type { NewMessage as NewMessageProto } from "./gen/echomesh/memory/v1/conversation_pb.js";
import { MemoryService } from "./gen/echomesh/memory/v1/memory_pb.js";
import type { Memory as MemoryProto } from "./gen/echomesh/memory/v1/memory_pb.js";
import { RoutingService } from "./gen/echomesh/routing/v1/routing_pb.js";
import type { ExplainResponse } from "./gen/echomesh/routing/v1/routing_pb.js";
import { Scope, type CallOptions } from "./scope.js";
import { unary, type Session } from "./session.js";
import { readConversation, readMemory, readMessage, readRecall, writeMessage } from "./types.js";
import type { Conversation, ImportResult, Memory, Message, NewMessage, RecallResult } from "./types.js";

const CALL_TIMEOUT_MS = 10_000;
const CHAT_TIMEOUT_MS = 60_000;
/** One call takes at most 500 messages and 4 MiB; half of that is stored well within its time. */
const PART_MESSAGES = 500;
const PART_BYTES = 2 * 2 ** 20;

/** What holds for every call of a client. */
export interface UserOptions {
  /** Milliseconds for a call and all its attempts together. Unset: 10,000; a chat has 60,000. */
  timeoutMs?: number;
  /** The W3C trace context to continue, asked at the start of each call; without one a trace begins. */
  traceparent?: () => string | undefined;
}

export interface RememberOptions extends CallOptions {
  speaker?: string;
  time?: Date;
  metadata?: Record<string, string>;
  requestId?: string;
}

export interface RecallOptions extends CallOptions {
  /** At most 100. Unset: 10. */
  limit?: number;
  /** The name behind "I" and "my". */
  asker?: string;
  /** Said at or after, and before. */
  since?: Date;
  until?: Date;
  conversationId?: string;
  speaker?: string;
  metadata?: Record<string, string>;
}

export interface PageOptions extends CallOptions {
  /** How many are fetched at a time; at most 500. */
  pageSize?: number;
}

/** A page of something, as every list call answers. */
interface Page<T> {
  items: T[];
  nextPageToken: string;
}

/** One user's messages, memories and conversations; made by `Client`. */
export class User {
  /** @internal */
  constructor(
    protected readonly session: Session,
    protected readonly options: UserOptions,
  ) {}

  /**
   * Send a message and iterate over the frames of the reply; the last one is final.
   *
   * If a replica of the mesh is lost the same request is tried again: a restart frame then says that the
   * text so far is void. Leaving the iteration early cancels the reply, unless `detach`.
   */
  chat(text: string, options: ChatOptions = {}): AsyncGenerator<Frame, void, void> {
    const request = chatRequest(text, options);
    const timeoutMs = options.timeoutMs ?? CHAT_TIMEOUT_MS;
    return chatFrames(this.session, request, this.scope({ ...options, timeoutMs }));
  }

  /** Send a message and wait for the whole reply. */
  reply(text: string, options: ChatOptions = {}): Promise<Reply> {
    return wholeReply(this.chat(text, options));
  }

  /** How a reply came to be: by its own id, its question's, or the request's. */
  explain(
    of: { messageId?: string; requestId?: string },
    options: CallOptions = {},
  ): Promise<ExplainResponse> {
    return this.call(RoutingService.method.explain, of, options);
  }

  /** Store something about the user; acknowledged only once it is durable. */
  async remember(text: string, options: RememberOptions = {}): Promise<Memory> {
    const { speaker = "", metadata = {}, time, requestId = randomUUID() } = options;
    const memory = { requestId, text, speaker, metadata, time: time && timestampFromDate(time) };
    return stored(await this.call(MemoryService.method.remember, { memory }, options));
  }

  /** What is relevant to a query, best first. */
  async recall(query: string, options: RecallOptions = {}): Promise<RecallResult> {
    const { limit = 10, asker = "", since, until } = options;
    const { conversationId = "", speaker = "", metadata = {} } = options;
    const times = { since: since && timestampFromDate(since), until: until && timestampFromDate(until) };
    const filter = { ...times, conversationId, speaker, metadata };
    const request = { query, limit, asker, filter };
    return readRecall(await this.call(MemoryService.method.recall, request, options));
  }

  /** Replace the text of a memory; the earlier version stays in its history. */
  async correct(
    memoryId: string,
    text: string,
    options: CallOptions & { requestId?: string } = {},
  ): Promise<Memory> {
    const { requestId = randomUUID() } = options;
    const request = { requestId, memory: { id: memoryId, text }, updateMask: { paths: ["text"] } };
    return stored(await this.call(MemoryService.method.updateMemory, request, options));
  }

  /** Erase a memory for good. */
  async forget(memoryId: string, options: CallOptions = {}): Promise<void> {
    await this.call(MemoryService.method.forgetMemory, { memoryId }, options);
  }

  /** All memories, newest first; pages are fetched as they are needed. */
  memories({ pageSize = 100, ...options }: PageOptions = {}): AsyncGenerator<Memory, void, void> {
    return pages(async (pageToken) => {
      const request = { pageSize, pageToken };
      const answer = await this.call(MemoryService.method.listMemories, request, options);
      return { items: answer.memories.map(readMemory), nextPageToken: answer.nextPageToken };
    });
  }

  /** How many memories there are, and how many of them are not indexed yet. */
  async indexStatus(options: CallOptions = {}): Promise<{ memories: number; pending: number }> {
    const answer = await this.call(MemoryService.method.getIndexStatus, {}, options);
    return { memories: Number(answer.memories), pending: Number(answer.pending) };
  }

  /**
   * Store earlier messages; one whose request id was used for another is left out. Many or long ones are
   * sent in several calls, each of which is one transaction.
   */
  async importMessages(
    conversationId: string,
    messages: NewMessage[],
    options: CallOptions = {},
  ): Promise<ImportResult> {
    const result: ImportResult = { stored: 0, duplicates: 0, refused: [] };
    for (const part of parts(messages.map((m) => create(NewMessageSchema, writeMessage(m))))) {
      const answer = await this.append(conversationId, part, options);
      result.stored += answer.stored;
      result.duplicates += answer.duplicates;
      result.refused.push(...answer.refused);
    }
    return result;
  }

  /** Store one part; that all of it is refused is no failure of an import. */
  private async append(
    conversationId: string,
    messages: NewMessageProto[],
    options: CallOptions,
  ): Promise<ImportResult> {
    const { appendMessages } = ConversationService.method;
    try {
      const answer = await this.call(appendMessages, { conversationId, messages }, options);
      const refused = answer.refused.map((each) => messages[each.index]?.requestId ?? "");
      return { stored: answer.stored, duplicates: answer.duplicates, refused };
    } catch (error) {
      if (!(error instanceof EchomeshError && error.reason === "REQUEST_ID_REUSED")) throw error;
      return { stored: 0, duplicates: 0, refused: messages.map((message) => message.requestId) };
    }
  }

  /** All conversations, newest first. */
  conversations({ pageSize = 50, ...options }: PageOptions = {}): AsyncGenerator<Conversation, void, void> {
    return pages(async (pageToken) => {
      const request = { pageSize, pageToken };
      const answer = await this.call(ConversationService.method.listConversations, request, options);
      return { items: answer.conversations.map(readConversation), nextPageToken: answer.nextPageToken };
    });
  }

  /** The messages of a conversation in order, or backwards from the newest. */
  messages(
    conversationId: string,
    { pageSize = 100, newestFirst = false, ...options }: PageOptions & { newestFirst?: boolean } = {},
  ): AsyncGenerator<Message, void, void> {
    return pages(async (pageToken) => {
      const request = { conversationId, pageSize, pageToken, descending: newestFirst };
      const answer = await this.call(ConversationService.method.listMessages, request, options);
      return { items: answer.messages.map(readMessage), nextPageToken: answer.nextPageToken };
    });
  }

  /** Delete a conversation with its memories; how many messages it had. */
  async deleteConversation(conversationId: string, options: CallOptions = {}): Promise<number> {
    const { deleteConversation } = ConversationService.method;
    return Number((await this.call(deleteConversation, { conversationId }, options)).deletedMessages);
  }

  private call<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    options: CallOptions,
  ): Promise<MessageShape<O>> {
    return unary(this.session, method, request, this.scope(options));
  }

  protected scope(options: CallOptions): Scope {
    const timeoutMs = this.options.timeoutMs ?? CALL_TIMEOUT_MS;
    return new Scope(options, timeoutMs, this.options.traceparent?.());
  }
}

/** Everything that a list call has, page by page. */
async function* pages<T>(fetch: (pageToken: string) => Promise<Page<T>>): AsyncGenerator<T, void, void> {
  let pageToken = "";
  do {
    const page = await fetch(pageToken);
    yield* page.items;
    pageToken = page.nextPageToken;
  } while (pageToken);
}

/** Split messages, in order, into what one call may carry. */
function* parts(messages: NewMessageProto[]): Generator<NewMessageProto[]> {
  let part: NewMessageProto[] = [];
  let sizeBytes = 0;
  for (const message of messages) {
    const messageBytes = toBinary(NewMessageSchema, message).length;
    if (part.length === PART_MESSAGES || (part.length && sizeBytes + messageBytes > PART_BYTES)) {
      yield part;
      [part, sizeBytes] = [[], 0];
    }
    part.push(message);
    sizeBytes += messageBytes;
  }
  if (part.length) yield part;
}

function stored(answer: { memory?: MemoryProto | undefined }): Memory {
  if (!answer.memory) throw new EchomeshError("INTERNAL", "the mesh answered without the memory");
  return readMemory(answer.memory);
}
