/** What a chat yields: one type for each kind of frame, told apart by `kind`. Times are in milliseconds. */

import { durationMs, timestampDate, type Duration } from "@bufbuild/protobuf/wkt";

import { FinishReason } from "./gen/echomesh/memory/v1/conversation_pb.js";
import { Progress_Stage, QueryType, StoreResult, Tier } from "./gen/echomesh/routing/v1/chat_pb.js";
import type * as proto from "./gen/echomesh/routing/v1/chat_pb.js";

/** The request was understood; `replayed` if the turn had been finished before. */
export interface Accepted {
  kind: "accepted";
  requestId: string;
  conversationId: string;
  traceId: string;
  replayed: boolean;
  assistantName: string;
}

/** What the mesh is doing: "queued", "recalling", "waking" or "generating". */
export interface Progress {
  kind: "progress";
  stage: string;
  position: number;
  estimateMs: number;
}

/** Tier ("instant", "fast", "standard"), query type and model, and why. */
export interface Decision {
  kind: "decision";
  tier: string;
  queryType: string;
  model: string;
  reason: string;
}

/** A memory that the reply may rest on; `time` is when it was said. */
export interface UsedMemory {
  memoryId: string;
  text: string;
  speaker: string;
  time: Date | undefined;
  score: number;
  conversationId: string;
}

/** The memories put before the model, best first. */
export interface MemoriesUsed {
  kind: "memories";
  memories: UsedMemory[];
}

/** More text of the reply. */
export interface Text {
  kind: "text";
  text: string;
}

/** The model asks for a tool; `argumentsJson` is JSON text as the model wrote it. */
export interface ToolCall {
  kind: "toolCall";
  id: string;
  name: string;
  argumentsJson: string;
}

/** Discard all text so far: the reply begins again. */
export interface Restart {
  kind: "restart";
  reason: string;
}

/** Another model goes on; the text so far stays. */
export interface Resume {
  kind: "resume";
  model: string;
}

/**
 * The reply is complete and its fate is known.
 *
 * `messageStored` and `replyStored` are "stored", "not_stored" or "unknown"; times count from the start
 * of the call, as the mesh measured them. `confidence` (0..1) says how likely the memories hold an
 * answer; undefined where a language model answered.
 */
export interface Final {
  kind: "final";
  messageId: string;
  replyId: string;
  finishReason: string;
  messageStored: string;
  replyStored: string;
  degraded: string[];
  tier: string;
  model: string;
  firstTextMs: number;
  totalMs: number;
  promptTokens: number;
  completionTokens: number;
  traceId: string;
  usedMemoryIds: string[];
  confidence: number | undefined;
}

export type Frame =
  Accepted | Progress | Decision | MemoriesUsed | Text | ToolCall | Restart | Resume | Final;

/** The name of an enum's value, as "instant"; a value newer than this client keeps its number. */
export function enumName(names: Record<number, string>, value: number): string {
  return (names[value] ?? String(value)).toLowerCase();
}

/** A duration in milliseconds; an unset one is 0. */
function ms(duration: Duration | undefined): number {
  return duration ? durationMs(duration) : 0;
}

/** The typed frame, or undefined for a kind that is newer than this client. */
export function readFrame({ frame }: proto.ChatResponse): Frame | undefined {
  switch (frame.case) {
    case "accepted": {
      const { requestId, conversationId, traceId, replayed, assistantName } = frame.value;
      return { kind: "accepted", requestId, conversationId, traceId, replayed, assistantName };
    }
    case "progress": {
      const { stage, position, estimate } = frame.value;
      const name = enumName(Progress_Stage, stage);
      return { kind: "progress", stage: name, position, estimateMs: ms(estimate) };
    }
    case "decision":
      return readDecision(frame.value);
    case "memories":
      return { kind: "memories", memories: frame.value.memories.map(readUsedMemory) };
    case "text":
      return { kind: "text", text: frame.value.text };
    case "toolCall": {
      const { id, name, argumentsJson } = frame.value;
      return { kind: "toolCall", id, name, argumentsJson };
    }
    case "restart":
      return { kind: "restart", reason: frame.value.reason };
    case "resume":
      return { kind: "resume", model: frame.value.model };
    case "final":
      return readFinal(frame.value);
    default:
      return undefined;
  }
}

/** What was chosen. */
export function readDecision(m: proto.Decision): Decision {
  return {
    kind: "decision",
    tier: enumName(Tier, m.tier),
    queryType: enumName(QueryType, m.queryType),
    model: m.model,
    reason: m.reason,
  };
}

/** A memory that was laid before the model. */
export function readUsedMemory(m: proto.UsedMemory): UsedMemory {
  const { memoryId, text, speaker, score, conversationId } = m;
  const time = m.time && timestampDate(m.time);
  return { memoryId, text, speaker, time, score, conversationId };
}

function readFinal(m: proto.Final): Final {
  return {
    kind: "final",
    messageId: m.messageId,
    replyId: m.replyId,
    finishReason: enumName(FinishReason, m.finishReason),
    messageStored: enumName(StoreResult, m.messageStored),
    replyStored: enumName(StoreResult, m.replyStored),
    degraded: m.degraded,
    tier: enumName(Tier, m.tier),
    model: m.model,
    firstTextMs: ms(m.firstText),
    totalMs: ms(m.total),
    promptTokens: m.usage?.promptTokens ?? 0,
    completionTokens: m.usage?.completionTokens ?? 0,
    traceId: m.traceId,
    usedMemoryIds: m.usedMemoryIds,
    confidence: m.confidence,
  };
}
