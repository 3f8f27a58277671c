// The TypeScript SDK's driver; it needs the packed SDK and nothing else.

import { createInterface } from "node:readline";

import { Client, EchomeshError, maxAttempts } from "echomesh";
import * as admin from "echomesh/gen/echomesh/auth/v1/admin_pb";
import * as auth from "echomesh/gen/echomesh/auth/v1/auth_pb";
import * as conversation from "echomesh/gen/echomesh/memory/v1/conversation_pb";
import * as memory from "echomesh/gen/echomesh/memory/v1/memory_pb";
import { ChatRole } from "echomesh/gen/echomesh/models/v1/models_pb";
import * as chatting from "echomesh/gen/echomesh/routing/v1/chat_pb";
import * as routing from "echomesh/gen/echomesh/routing/v1/routing_pb";

const clients = new Map();
const underway = new Map();

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const snake = (name) => name.replace(/[A-Z]/g, (letter) => "_" + letter.toLowerCase());
const camel = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
/** Names whose values are whatever the user or the mesh says. */
const FREE = new Set(["metadata", "scores"]);

/** A value by the judge's names: snake case, seconds, ISO times. */
function plain(value) {
  if (value instanceof Date) return value.toISOString();
  if (Array.isArray(value)) return value.map(plain);
  if (value === undefined) return null;
  if (value === null || typeof value !== "object") return value;
  const entries = Object.entries(value).map(([name, each]) => {
    if (FREE.has(name)) return [name, each];
    if (name.endsWith("Ms")) return [snake(name).replace(/_ms$/, "_s"), each / 1000];
    return [snake(name), name === "kind" && each ? snake(each) : plain(each)];
  });
  return Object.fromEntries(entries);
}

/** Arguments by the SDK's names. */
function options({ timeout_s, ...request }, signal) {
  const renamed = Object.entries(request).map(([name, value]) => [camel(name), given(name, value)]);
  return { ...Object.fromEntries(renamed), timeoutMs: timeout_s && timeout_s * 1000, signal };
}

/** An argument as the SDK wants it: dates, and messages with the enum of their roles. */
function given(name, value) {
  if (["time", "since", "until"].includes(name)) return new Date(value);
  if (name !== "history") return value;
  return value.map(({ role, content }) => ({ role: ChatRole[role.toUpperCase()], content }));
}

async function collect(items) {
  const all = [];
  for await (const item of items) all.push(plain(item));
  return all;
}

/** Tell frames as they come; leave, or fail, after so many of text if told to. */
async function chat(id, user, { text, leave_after, fail_after, ...request }, signal) {
  let texts = 0;
  for await (const frame of user.chat(text, options(request, signal))) {
    say({ id, frame: plain(frame) });
    if (frame.kind === "text") texts += 1;
    if (fail_after && texts === fail_after) throw new Error("the caller's own error");
    if (leave_after && texts === leave_after) break;
  }
  return null;
}

function message({ request_id, time, ...rest }) {
  return { ...rest, requestId: request_id, time: time && new Date(time) };
}

const CALLS = {
  chat,
  reply: async (_, user, { text, ...rest }, signal) => plain(await user.reply(text, options(rest, signal))),
  remember: async (_, user, { text, ...rest }, signal) =>
    plain(await user.remember(text, options(rest, signal))),
  recall: async (_, user, { query, ...rest }, signal) => plain(await user.recall(query, options(rest, signal))),
  correct: async (_, user, { memory_id, text, ...rest }, signal) =>
    plain(await user.correct(memory_id, text, options(rest, signal))),
  forget: async (_, user, { memory_id, ...rest }, signal) => {
    await user.forget(memory_id, options(rest, signal));
    return null;
  },
  memories: (_, user, rest, signal) => collect(user.memories(options(rest, signal))),
  index_status: async (_, user, rest, signal) => plain(await user.indexStatus(options(rest, signal))),
  conversations: (_, user, rest, signal) => collect(user.conversations(options(rest, signal))),
  messages: (_, user, { conversation_id, ...rest }, signal) =>
    collect(user.messages(conversation_id, options(rest, signal))),
  import_messages: async (_, user, { conversation_id, messages, ...rest }, signal) =>
    plain(await user.importMessages(conversation_id, messages.map(message), options(rest, signal))),
  delete_conversation: (_, user, { conversation_id, ...rest }, signal) =>
    user.deleteConversation(conversation_id, options(rest, signal)),
  explain: async (_, user, { message_id }, signal) => {
    const answer = await user.explain({ messageId: message_id }, { signal });
    return { model: answer.decision.model, reply_id: answer.replyId };
  },
  endpoints: (_, client, rest, signal) => client.endpoints(options(rest, signal)),
};

function retryTable() {
  const table = {};
  for (const exported of [admin, auth, conversation, memory, chatting, routing].flatMap(Object.values)) {
    if (exported.kind !== "service") continue;
    for (const method of exported.methods) {
      table[`${exported.typeName}.${method.name}`] = maxAttempts(method);
    }
  }
  return table;
}

async function perform({ id, op, on, ...request }) {
  if (op === "connect") {
    const { address, api_key, root_certificates, ...rest } = request;
    const rootCertificates = root_certificates && Buffer.from(root_certificates);
    clients.set(on, new Client(address, { apiKey: api_key, rootCertificates, ...options(rest) }));
    return null;
  }
  if (op === "as_user") {
    clients.set(request.name, clients.get(on).asUser(request.user));
    return null;
  }
  if (op === "close") {
    clients.get(on).close();
    return null;
  }
  if (op === "cancel") {
    underway.get(request.target)?.abort();
    return null;
  }
  if (op === "retry_table") return retryTable();
  const controller = new AbortController();
  underway.set(id, controller);
  try {
    return await CALLS[op](id, clients.get(on), request, controller.signal);
  } finally {
    underway.delete(id);
  }
}

/** An error by the judge's names. */
function told(error) {
  if (!(error instanceof EchomeshError)) {
    return { code: error.name === "AbortError" ? "CANCELLED" : "DRIVER", message: String(error.stack) };
  }
  const { code, message, reason, metadata, violations, retryAfterMs, traceId } = error;
  const retry_after_s = retryAfterMs === undefined ? null : retryAfterMs / 1000;
  return { code, message, reason, metadata, violations, retry_after_s, trace_id: traceId };
}

const input = createInterface({ input: process.stdin });
input.on("line", (line) => {
  const request = JSON.parse(line);
  perform(request).then(
    (ok) => say({ id: request.id, ok: ok ?? null }),
    (error) => say({ id: request.id, error: told(error) }),
  );
});
input.on("close", () => process.exit(0));
