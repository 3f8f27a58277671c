// @ts-check
/** A turn as people see it: the message, the reply, and all that is known about the reply. */

import { button, day, el, seconds } from "./dom.js";
import { memoryItem } from "./memory_items.js";
import { shownReply } from "./thread.js";
import { inWords, stageInWords } from "./words.js";

/**
 * @typedef {import("./thread.js").Turn} Turn
 * @typedef {import("./thread.js").Reply} Reply
 * @typedef {import("./thread.js").Memory} Memory
 * @typedef {import("./memory_items.js").Acts & {
 *   onRegenerate: (turn: Turn) => void, onRetry: (turn: Turn) => void,
 *   onEdit: (turn: Turn) => void, onShow: (turn: Turn, index: number) => void,
 *   onWhy: (turn: Turn, reply: Reply) => void,
 *   onScores: (turn: Turn, reply: Reply) => void}} TurnActs
 */

/**
 * A turn as an element; `isLast` turns can be edited and answered again, unless the page is busy.
 * @param {Turn} turn
 * @param {{isLast: boolean, isBusy: boolean, acts: TurnActs}} how
 */
export function turnView(turn, { isLast, isBusy, acts }) {
  const reply = shownReply(turn);
  const mayChange = isLast && !isBusy && turn.text;
  const edit = button("Edit", () => acts.onEdit(turn), { class: "small" });
  const message = el(
    "article",
    { class: "message user", "aria-label": "You" },
    el("p", { class: "text" }, turn.text),
    mayChange ? el("div", { class: "acts" }, edit) : null,
  );
  return el(
    "div",
    { class: "turn" },
    turn.text ? message : null,
    reply ? replyView(turn, reply, Boolean(mayChange), acts) : null,
  );
}

/**
 * Show the text of a reply that is being written, in its element.
 * @param {Element} view
 * @param {Reply} reply
 */
export function showText(view, reply) {
  const text = view.querySelector(".reply .text");
  if (text) text.textContent = reply.text;
  const progress = view.querySelector(".reply .progress");
  if (progress) progress.textContent = progressOf(reply);
}

/**
 * @param {Turn} turn
 * @param {Reply} reply
 * @param {boolean} mayChange
 * @param {TurnActs} acts
 */
function replyView(turn, reply, mayChange, acts) {
  const isWriting = reply.state === "streaming";
  return el(
    "article",
    { class: "message reply", "aria-label": "Reply", "aria-busy": String(isWriting) },
    el("p", { class: "text" }, reply.text),
    isWriting ? el("p", { class: "progress quiet" }, progressOf(reply)) : null,
    reply.state === "stopped" ? el("p", { class: "quiet" }, "Stopped.") : null,
    reply.state === "failed" ? el("p", { class: "error" }, inWords(reply.error)) : null,
    el("p", { class: "facts quiet" }, factsOf(reply)),
    el("div", { class: "acts" }, ...actsOn(turn, reply, mayChange, acts)),
    reply.isExplained && reply.why ? whyView(reply) : null,
    memoriesOf(turn, reply, acts),
  );
}

/** @param {Reply} reply */
function progressOf(reply) {
  if (reply.progress === "lost") return "The mesh cannot be reached; trying again …";
  return reply.text ? "" : stageInWords(reply.progress);
}

/**
 * Tier, model and timings, as far as they are known.
 * @param {Reply} reply
 */
function factsOf(reply) {
  const { decision, final, why } = reply;
  const first = final?.first_text_ms ?? why?.timings.first_text_ms ?? null;
  const total = final?.total_ms ?? why?.timings.generated_ms ?? null;
  const degraded = final?.degraded ?? why?.degraded ?? [];
  const isUnstored = final && final.reply_stored !== "stored";
  const facts = [
    final?.tier || decision?.tier,
    final?.model || reply.model || decision?.model,
    first === null ? "" : `first text ${seconds(first)}`,
    total === null ? "" : `total ${seconds(total)}`,
    degraded.length ? `without ${degraded.join(", ")}` : "",
    isUnstored ? "not stored" : "",
    day(reply.time),
  ];
  return facts.filter(Boolean).join(" · ");
}

/**
 * @param {Turn} turn
 * @param {Reply} reply
 * @param {TurnActs} acts
 */
function memoriesOf(turn, reply, acts) {
  if (!reply.memories.length) return null;
  const [used, offered] = byUse(reply);
  const list = (/** @type {Memory[]} */ memories, /** @type {boolean} */ isUsed) => {
    const items = memories.map((memory) => {
      const why = { score: memory.score, scores: reply.scores?.[memory.id], isUsed };
      return memoryItem(memory, acts, why);
    });
    return el("ul", { class: "memories" }, ...items);
  };
  const shown = used.length ? list(used, true) : list(offered, false);
  const label = used.length ? `${counted(used)} used` : `${counted(offered)} at hand`;
  const details = el("details", { class: "used" }, el("summary", {}, label), shown);
  if (used.length && offered.length) {
    const more = el("summary", {}, `${offered.length} more at hand`);
    details.append(el("details", {}, more, list(offered, false)));
  }
  details.open = reply.isListed;
  details.addEventListener("toggle", () => {
    reply.isListed = details.open;
    if (details.open && !reply.scores) acts.onScores(turn, reply);
  });
  return details;
}

/** @param {Memory[]} memories */
function counted(memories) {
  return memories.length === 1 ? "1 memory" : `${memories.length} memories`;
}

/**
 * The memories that a reply rests on, and those that were laid before the model beside them.
 * @param {Reply} reply
 * @returns {[Memory[], Memory[]]}
 */
function byUse(reply) {
  const used = new Set(reply.used);
  const isUsed = (/** @type {Memory} */ memory) => used.has(memory.id);
  return [reply.memories.filter(isUsed), reply.memories.filter((each) => !isUsed(each))];
}

/**
 * @param {Turn} turn
 * @param {Reply} reply
 * @param {boolean} mayChange
 * @param {TurnActs} acts
 */
function actsOn(turn, reply, mayChange, acts) {
  if (reply.state === "streaming") return [];
  const isOpen = String(reply.isExplained);
  const mayRegenerate = mayChange && reply.state !== "failed" && turn.messageKey;
  const made = [
    button("Why?", () => acts.onWhy(turn, reply), { class: "small", "aria-expanded": isOpen }),
  ];
  if (mayRegenerate) {
    made.push(button("Regenerate", () => acts.onRegenerate(turn), { class: "small" }));
  }
  if (mayChange && reply.state === "failed") {
    made.push(button("Try again", () => acts.onRetry(turn), { class: "small" }));
  }
  return [...made, ...pager(turn, acts)];
}

/**
 * @param {Turn} turn
 * @param {TurnActs} acts
 */
function pager(turn, acts) {
  if (turn.replies.length < 2) return [];
  const { shown, replies } = turn;
  return [
    button("‹", () => acts.onShow(turn, shown - 1), {
      class: "small",
      "aria-label": "Reply before",
      disabled: shown === 0,
    }),
    el("span", { class: "quiet" }, `${shown + 1} of ${replies.length}`),
    button("›", () => acts.onShow(turn, shown + 1), {
      class: "small",
      "aria-label": "Reply after",
      disabled: shown === replies.length - 1,
    }),
  ];
}

/** @param {Reply} reply */
function whyView(reply) {
  const { decision, attempts, timings, usage, confidence, degraded, trace_id, trace_url } = reply.why;
  const tried = attempts.map(
    (/** @type {any} */ each) =>
      `${each.model}: ${each.error_reason || "answered"} after ${seconds(each.elapsed_ms)}`,
  );
  /** @type {[string, string | Node][]} */
  const rows = [
    ["Chosen", `${decision.model || "none"}: ${decision.reason || "nothing was chosen"}`],
    ["Kind", [decision.query_type, `tier ${decision.tier}`].filter(Boolean).join(", ")],
    ["Tried", tried.join("; ")],
    ["Left out", degraded.join(", ")],
    ["Confidence", confidence === null ? "" : `${Math.round(confidence * 100)} %`],
    ["Times", timesOf(timings)],
    ["Tokens", `${usage.prompt_tokens} read, ${usage.completion_tokens} written`],
    ["Trace", traceOf(trace_id, trace_url)],
  ];
  const known = rows.filter(([, value]) => value);
  const parts = known.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]);
  const note = "The parts of a score are those of a recall of the same message now.";
  return el(
    "section",
    { class: "why", "aria-label": "Why this reply" },
    el("dl", {}, ...parts),
    reply.memories.length ? el("p", { class: "quiet" }, note) : null,
  );
}

/** @param {any} timings */
function timesOf(timings) {
  const named = [
    ["waited", timings.started_ms],
    ["prepared", timings.prepared_ms],
    ["first text", timings.first_text_ms],
    ["last text", timings.generated_ms],
  ];
  const known = named.filter(([, ms]) => ms !== null);
  return known.map(([name, ms]) => `${name} ${seconds(ms)}`).join(", ");
}

/**
 * @param {string} id
 * @param {string} url
 */
function traceOf(id, url) {
  if (!/^https?:\/\//.test(url)) return id;
  return el("a", { href: url, target: "_blank", rel: "noopener noreferrer" }, id);
}
