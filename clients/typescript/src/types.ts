/** What the client takes and returns beside the frames of a chat. */

import { randomUUID } from "node:crypto";

import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";

import { enumName } from "./frames.js";
import { MessageRole, type NewMessageSchema } from "./gen/echomesh/memory/v1/conversation_pb.js";
import type * as conversationProto from "./gen/echomesh/memory/v1/conversation_pb.js";
import { MemoryKind } from "./gen/echomesh/memory/v1/memory_pb.js";
import type * as memoryProto from "./gen/echomesh/memory/v1/memory_pb.js";

/** A conversation of the user. */
export interface Conversation {
  id: string;
  title: string;
  metadata: Record<string, string>;
  createdAt: Date | undefined;
  updatedAt: Date | undefined;
  messageCount: number;
}

/** A stored message; `seq` is its position in the conversation, from 1. */
export interface Message {
  id: string;
  conversationId: string;
  seq: number;
  role: string;
  speaker: string;
  text: string;
  time: Date | undefined;
  metadata: Record<string, string>;
}

/** A message to import. The same `requestId` is stored once, however often it is sent. */
export interface NewMessage {
  role: "user" | "assistant";
  text: string;
  speaker?: string;
  time?: Date;
  metadata?: Record<string, string>;
  requestId?: string;
}

/**
 * What became of imported messages. `duplicates` were stored before. `refused` are the request ids that
 * were used before for something else: nothing of those messages is stored.
 */
export interface ImportResult {
  stored: number;
  duplicates: number;
  refused: string[];
}

/** Something remembered of the user. */
export interface Memory {
  id: string;
  version: number;
  kind: string;
  text: string;
  speaker: string;
  time: Date | undefined;
  metadata: Record<string, string>;
  conversationId: string;
  messageId: string;
}

/** A recalled memory; `scores` says why it was found, by source. */
export interface RecallHit {
  memory: Memory;
  score: number;
  scores: Record<string, number>;
}

/** Hits, best first, and what could not take part. */
export interface RecallResult {
  hits: RecallHit[];
  degraded: string[];
}

/** Read a conversation. */
export function readConversation(m: conversationProto.Conversation): Conversation {
  return {
    id: m.id,
    title: m.title,
    metadata: m.metadata,
    createdAt: m.createdAt && timestampDate(m.createdAt),
    updatedAt: m.updatedAt && timestampDate(m.updatedAt),
    messageCount: Number(m.messageCount),
  };
}

/** Read a message. */
export function readMessage(m: conversationProto.Message): Message {
  return {
    id: m.id,
    conversationId: m.conversationId,
    seq: Number(m.seq),
    role: enumName(MessageRole, m.role),
    speaker: m.speaker,
    text: m.text,
    time: m.time && timestampDate(m.time),
    metadata: m.metadata,
  };
}

/**
 * Write a message, with a request id of its own unless it has one.
 *
 * @throws RangeError if there is no such role
 */
export function writeMessage(m: NewMessage): MessageInitShape<typeof NewMessageSchema> {
  return {
    requestId: m.requestId ?? randomUUID(),
    role: roleOf(m.role),
    speaker: m.speaker ?? "",
    text: m.text,
    time: m.time && timestampFromDate(m.time),
    metadata: m.metadata ?? {},
  };
}

function roleOf(role: NewMessage["role"]): MessageRole {
  if (role === "user") return MessageRole.USER;
  if (role === "assistant") return MessageRole.ASSISTANT;
  throw new RangeError(`role must be "user" or "assistant", not ${JSON.stringify(role)}`);
}

/** Read a memory. */
export function readMemory(m: memoryProto.Memory): Memory {
  return {
    id: m.id,
    version: Number(m.version),
    kind: enumName(MemoryKind, m.kind),
    text: m.text,
    speaker: m.speaker,
    time: m.time && timestampDate(m.time),
    metadata: m.metadata,
    conversationId: m.conversationId,
    messageId: m.messageId,
  };
}

/** Read an answer of Recall; a hit without a memory is none. */
export function readRecall(m: memoryProto.RecallResponse): RecallResult {
  return { hits: m.hits.flatMap(readHit), degraded: m.degraded };
}

function readHit(m: memoryProto.RecallHit): RecallHit[] {
  if (!m.memory) return [];
  const { $typeName, $unknown, ...scores } = m.scores ?? { $typeName: "" };
  return [{ memory: readMemory(m.memory), score: m.score, scores }];
}
