/** Messages and their replies. */

import { randomUUID } from "node:crypto";

import { create, type MessageInitShape } from "@bufbuild/protobuf";

import { EchomeshError } from "./errors.js";
import { readFrame, type Final, type Frame } from "./frames.js";
import type { ResponseFormatSchema, SamplingSchema } from "./gen/echomesh/models/v1/models_pb.js";
import type { ChatMessageSchema, ToolSchema } from "./gen/echomesh/models/v1/models_pb.js";
import { ChatRequestSchema, ChatService, Tier } from "./gen/echomesh/routing/v1/chat_pb.js";
import type { ChatRequest, ChatResponse } from "./gen/echomesh/routing/v1/chat_pb.js";
import type { CallOptions, Scope } from "./scope.js";
import { Attempts, stream, type Session } from "./session.js";

const CHAT = ChatService.method.chat;
const TIERS = { instant: Tier.INSTANT, fast: Tier.FAST, standard: Tier.STANDARD };

/** How a message is to be answered; what is unset is the mesh's choice. */
export interface ChatOptions extends CallOptions {
  /** Made on first use. Unset: "default". */
  conversationId?: string;
  /** How soon the first text must come: 0.5 s, 2 s or 5 s. */
  tier?: keyof typeof TIERS;
  model?: string;
  /** The user's name, for prompts and for "I" in questions. */
  speaker?: string;
  persona?: string;
  /** False: private, nothing is stored. */
  store?: boolean;
  /** False: nothing is recalled. */
  recall?: boolean;
  /** True: the reply is finished and stored even if this call ends early. */
  detach?: boolean;
  /** The message this one continues from: regenerate, edit, branch. */
  parentMessageId?: string;
  /** Names the message: one that its conversation has already is answered anew and not stored twice. */
  messageKey?: string;
  /** What the application tells the model: a system prompt. */
  instructions?: string;
  /** The conversation before this message, oldest first. Set, also if it is empty: the model is shown
   * this in place of what is stored, and it is stored nowhere. */
  history?: MessageInitShape<typeof ChatMessageSchema>[];
  tools?: MessageInitShape<typeof ToolSchema>[];
  /** Which tools the model may call: "auto" as it likes, "none", "required" at least one, or a tool's
   * name that one. */
  toolChoice?: string;
  toolMessages?: MessageInitShape<typeof ChatMessageSchema>[];
  responseFormat?: MessageInitShape<typeof ResponseFormatSchema>;
  sampling?: MessageInitShape<typeof SamplingSchema>;
  metadata?: Record<string, string>;
  /** The same id is answered once, however often it is sent. */
  requestId?: string;
}

/** A whole reply. */
export interface Reply {
  text: string;
  final: Final;
}

/**
 * The request that says all of this.
 *
 * @throws RangeError if there is no such tier
 */
export function chatRequest(text: string, options: ChatOptions): ChatRequest {
  const { signal, timeoutMs, tier, history, requestId, conversationId, ...rest } = options;
  if (tier && !Object.hasOwn(TIERS, tier)) {
    throw new RangeError(`tier must be one of ${Object.keys(TIERS).join(", ")}`);
  }
  return create(ChatRequestSchema, {
    ...rest,
    text,
    tier: tier ? TIERS[tier] : Tier.UNSPECIFIED,
    ...(history && { history: { messages: history } }),
    requestId: requestId || randomUUID(),
    conversationId: conversationId || "default",
  });
}

/** The frames of all attempts together; the last one is final. */
export async function* chatFrames(
  session: Session,
  request: ChatRequest,
  scope: Scope,
): AsyncGenerator<Frame, void, void> {
  const attempts = new Attempts(CHAT, session, scope);
  let hadOutput = false;
  for (;;) {
    let lost: unknown = new EchomeshError("UNAVAILABLE", "the stream broke off");
    try {
      for await (const frame of attempt(session, request, attempts, scope)) {
        hadOutput = frame.kind !== "restart" && (hadOutput || isOutput(frame));
        yield frame;
        if (frame.kind === "final") return;
      }
    } catch (error) {
      lost = error;
    }
    await attempts.after(lost);
    if (hadOutput) {
      hadOutput = false;
      yield { kind: "restart", reason: "reconnected" };
    }
  }
}

/** The whole of a reply from its frames. */
export async function wholeReply(frames: AsyncIterable<Frame>): Promise<Reply> {
  let text = "";
  for await (const frame of frames) {
    if (frame.kind === "restart") text = "";
    else if (frame.kind === "text") text += frame.text;
    else if (frame.kind === "final") return { text, final: frame };
  }
  throw new EchomeshError("UNAVAILABLE", "the reply ended without a final frame");
}

/** The frames of one attempt; its stream has ended when the final one comes. */
async function* attempt(
  session: Session,
  request: ChatRequest,
  attempts: Attempts,
  scope: Scope,
): AsyncGenerator<Frame, void, void> {
  const isLast = (response: ChatResponse): boolean => response.frame.case === "final";
  for await (const response of stream(session, CHAT, request, attempts, scope, isLast)) {
    const frame = readFrame(response);
    if (frame) yield frame;
  }
}

function isOutput(frame: Frame): boolean {
  return frame.kind === "text" || frame.kind === "toolCall";
}
