/**
 * Client for Echomesh, the backend of AI companions and assistants.
 *
 *     const client = new Client("127.0.0.1:7400", { apiKey });
 *     for await (const frame of client.chat("Hello!")) {
 *       if (frame.kind === "text") process.stdout.write(frame.text);
 *     }
 *     client.close();
 *
 * Everything that can fail throws `EchomeshError`, whose `reason` is a value of
 * `echomesh.common.v1.ErrorReason`.
 */

export { Client } from "./client.js";
export type { ClientOptions } from "./client.js";
export { User } from "./user.js";
export type { PageOptions, RecallOptions, RememberOptions, UserOptions } from "./user.js";
export type { ChatOptions, Reply } from "./chat.js";
export { EchomeshError } from "./errors.js";
export type { Code, ErrorDetails, FieldViolation } from "./errors.js";
export type {
  Accepted,
  Decision,
  Final,
  Frame,
  MemoriesUsed,
  Progress,
  Restart,
  Resume,
  Text,
  ToolCall,
  UsedMemory,
} from "./frames.js";
export type { CallOptions } from "./scope.js";
export type { TransportOptions } from "./transport.js";
export type {
  Conversation,
  ImportResult,
  Memory,
  Message,
  NewMessage,
  RecallHit,
  RecallResult,
} from "./types.js";
export { maxAttempts } from "./session.js";
