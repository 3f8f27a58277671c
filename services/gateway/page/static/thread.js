// @ts-check
/** A conversation as the page holds it: turns, each a message with its replies. No DOM in here. */

import { uuid } from "./dom.js";

// What the gateway takes of a history, and of each message in it.
const MAX_HISTORY = 200;
const MAX_CHARS = 8000;

/**
 * @typedef {{id: string, text: string, speaker: string, time: string | null, score: number,
 *   conversation_id: string}} Memory
 * @typedef {{requestId: string, id: string, text: string, model: string, time: string | null,
 *   state: "streaming" | "done" | "stopped" | "failed" | "stored", progress: string, decision: any,
 *   memories: Memory[], used: string[], scores: Record<string, any> | null, final: any, why: any, error: unknown,
 *   isListed: boolean, isExplained: boolean}} Reply
 * @typedef {{messageKey: string, messageId: string, text: string, parentId: string,
 *   history: {role: string, text: string}[] | null, isPrivate: boolean, replies: Reply[],
 *   shown: number}} Turn
 */

/**
 * A reply that is about to begin.
 * @returns {Reply}
 */
export function newReply() {
  return {
    requestId: uuid(),
    id: "",
    text: "",
    model: "",
    time: null,
    state: "streaming",
    progress: "",
    decision: null,
    memories: [],
    used: [],
    scores: null,
    final: null,
    why: null,
    error: null,
    isListed: false,
    isExplained: false,
  };
}

/**
 * A new message at the end of a thread.
 * @param {string} text
 * @param {Turn[]} before
 * @param {{isPrivate: boolean, isEdit: boolean}} how
 * @returns {Turn}
 */
export function newTurn(text, before, { isPrivate, isEdit }) {
  const parentId = isPrivate ? "" : lastId(before);
  // A private reply sees what the page shows. So does one that has no message to continue from,
  // because the one before it was edited away: what is stored would show that one still.
  const brings = isPrivate || (isEdit && !parentId);
  const history = brings ? historyOf(before) : null;
  return { ...emptyTurn(), messageKey: uuid(), text, parentId, history, isPrivate };
}

/** @returns {Turn} */
function emptyTurn() {
  return {
    messageKey: "",
    messageId: "",
    text: "",
    parentId: "",
    history: null,
    isPrivate: false,
    replies: [],
    shown: -1,
  };
}

/**
 * The reply that a turn shows; undefined before there is one.
 * @param {Turn} turn
 * @returns {Reply | undefined}
 */
export function shownReply(turn) {
  return turn.replies[turn.shown];
}

/**
 * What `POST reply` is asked for a turn's reply.
 * @param {Turn} turn
 * @param {Reply} reply
 * @param {string} conversationId
 */
export function requestOf(turn, reply, conversationId) {
  return {
    request_id: reply.requestId,
    conversation_id: conversationId,
    text: turn.text,
    message_key: turn.messageKey,
    parent_message_id: turn.parentId,
    private: turn.isPrivate,
    history: turn.history,
  };
}

/**
 * Take in one event of a reply.
 * @param {Turn} turn
 * @param {Reply} reply
 * @param {any} event
 */
export function take(turn, reply, event) {
  if (event.type === "text") reply.text += event.text;
  else if (event.type === "decision") reply.decision = event;
  else if (event.type === "memories") reply.memories = event.memories;
  else if (event.type === "progress") reply.progress = event.stage;
  else if (event.type === "accepted" || event.type === "restart") reply.text = "";
  else if (event.type === "lost") reply.progress = "lost";
  else if (event.type === "final") finish(turn, reply, event);
}

/**
 * @param {Turn} turn
 * @param {Reply} reply
 * @param {any} final
 */
function finish(turn, reply, final) {
  reply.final = final;
  reply.id = final.reply_id;
  reply.model = final.model;
  reply.used = final.used_memory_ids;
  reply.state = "done";
  turn.messageId = final.message_id;
}

/**
 * Fill in what is known of a reply that was stored before this page was loaded.
 * @param {Reply} reply
 * @param {any} why
 */
export function fillIn(reply, why) {
  reply.why = why;
  reply.decision ??= why.decision;
  reply.used = why.used_memory_ids;
  if (!reply.memories.length) reply.memories = why.memories;
}

/**
 * A thread from stored messages, oldest first. What was forgotten is left out.
 * @param {any[]} messages
 * @returns {Turn[]}
 */
export function turnsOf(messages) {
  /** @type {Turn[]} */
  const turns = [];
  for (const message of messages) {
    if (message.role === "user") turns.push(storedTurn(message));
    else addReply(turns, message);
  }
  const alive = turns.filter((turn) => turn.text || turn.replies.some((reply) => reply.text));
  showContinued(alive);
  return alive;
}

/** @param {any} message */
function storedTurn(message) {
  return {
    ...emptyTurn(),
    messageKey: message.message_key,
    messageId: message.id,
    text: message.text,
    parentId: message.parent_message_id,
  };
}

/**
 * @param {Turn[]} turns
 * @param {any} message
 */
function addReply(turns, message) {
  const reply = newReply();
  const { id, text, model, time } = message;
  Object.assign(reply, { id, text, model, time, state: "stored" });
  if (message.finish_reason === "cancelled") reply.state = "stopped";
  const asked = turns.find((turn) => turn.messageId && turn.messageId === message.in_reply_to);
  const last = turns.at(-1);
  let turn = asked ?? (last && !last.replies.length && !message.in_reply_to ? last : undefined);
  if (!turn) turns.push((turn = emptyTurn()));
  turn.replies.push(reply);
  turn.shown = turn.replies.length - 1;
}

/**
 * Of several replies, show the one that the conversation went on from.
 * @param {Turn[]} turns
 */
function showContinued(turns) {
  const parents = new Set(turns.map((turn) => turn.parentId).filter(Boolean));
  for (const turn of turns) {
    const continued = turn.replies.findLastIndex((reply) => parents.has(reply.id));
    if (continued >= 0) turn.shown = continued;
  }
}

/**
 * The id of the last message that is shown and stored; "" where that is not known.
 * @param {Turn[]} turns
 */
function lastId(turns) {
  const last = turns.at(-1);
  return last ? (shownReply(last)?.id ?? "") : "";
}

/**
 * What is shown, as a history for a reply.
 * @param {Turn[]} turns
 */
export function historyOf(turns) {
  const said = turns.flatMap((turn) => [
    { role: "user", text: cut(turn.text) },
    { role: "assistant", text: cut(shownReply(turn)?.text ?? "") },
  ]);
  return said.filter((each) => each.text).slice(-MAX_HISTORY);
}

/** @param {string} text */
function cut(text) {
  // Between the halves of one character there is no text.
  return text.slice(0, MAX_CHARS).replace(/[\uD800-\uDBFF]$/, "");
}

/**
 * A memory was forgotten (no text) or corrected: show it so wherever it is. A message that was
 * corrected stays as it was said; one that was forgotten is gone.
 * @param {Turn[]} turns
 * @param {string} id
 * @param {string} text
 */
export function changeMemory(turns, id, text) {
  for (const turn of turns) {
    if (!text && turn.messageId === id) turn.text = "";
    for (const reply of turn.replies) {
      if (!text && reply.id === id) reply.text = "";
      for (const memory of reply.memories) if (memory.id === id) memory.text = text;
    }
  }
}

/**
 * The ids of everything that is stored of a turn, among messages as they are stored now.
 * @param {Turn} turn
 * @param {any[]} messages
 * @returns {string[]}
 */
export function storedIds(turn, messages) {
  const isIt = (/** @type {any} */ each) =>
    each.id === turn.messageId || (turn.messageKey && each.message_key === turn.messageKey);
  const asked = messages.filter((each) => each.role === "user" && isIt(each)).map(({ id }) => id);
  const known = [turn.messageId, ...turn.replies.map((reply) => reply.id)];
  const replies = messages.filter((each) => asked.includes(each.in_reply_to)).map(({ id }) => id);
  return [...new Set([...known, ...asked, ...replies])].filter(Boolean);
}
