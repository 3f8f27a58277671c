// @ts-check
/** Memories as people see them: what, when, why, and what may be done about it. */

import { button, day, el } from "./dom.js";

/**
 * The parts of a recall's score: their names in the contract and in words.
 * @type {[string, string][]}
 */
const PARTS = [
  ["keyword", "same words"],
  ["dense", "same meaning"],
  ["max_sim", "closest words"],
  ["speaker", "names the speaker"],
  ["neighbours", "said around it"],
];

/**
 * @typedef {{onForget: (id: string) => Promise<void>, onCorrect: (id: string) => void}} Acts
 */

/**
 * One memory as a list item.
 * @param {{id: string, text: string, speaker: string, time: string | null}} memory
 * @param {Acts} acts
 * @param {{score?: number, scores?: Record<string, number>, isUsed?: boolean}} [why]
 */
export function memoryItem(memory, acts, { score, scores, isUsed = false } = {}) {
  if (!memory.text) return el("li", { class: "memory quiet" }, "Forgotten.");
  const said = [memory.speaker, day(memory.time)].filter(Boolean).join(", ");
  const points = score === undefined ? "" : `score ${score.toFixed(2)}`;
  const rests = isUsed ? "the reply rests on it" : "";
  const facts = [said, points, rests].filter(Boolean).join(" · ");
  return el(
    "li",
    { class: "memory", "data-memory": memory.id },
    el("p", { class: "memory-text" }, memory.text),
    el("p", { class: "quiet" }, facts),
    scores ? el("p", { class: "quiet scores" }, partsInWords(scores)) : null,
    el("div", { class: "acts" }, ...actsOn(memory, acts)),
  );
}

/**
 * The parts of a score that count, largest first.
 * @param {Record<string, number>} scores
 * @returns {string}
 */
export function partsInWords(scores) {
  const parts = PARTS.map(([name, words]) => /** @type {const} */ ([words, scores[name] ?? 0]));
  const counted = parts.filter(([, value]) => Math.abs(value) >= 0.005);
  counted.sort(([, one], [, other]) => Math.abs(other) - Math.abs(one));
  const told = counted.map(([words, value]) => `${words} ${value.toFixed(2)}`);
  return told.length ? `Why: ${told.join(", ")}` : "Why: it is recent here";
}

/**
 * @param {{id: string, text: string}} memory
 * @param {Acts} acts
 */
function actsOn(memory, acts) {
  const about = memory.text.slice(0, 60);
  return [
    button("Correct", () => acts.onCorrect(memory.id), { "aria-label": `Correct: ${about}` }),
    twice(
      { label: "Forget", question: "Really forget?", name: `Forget: ${about}`, key: memory.id },
      () => acts.onForget(memory.id),
    ),
  ];
}

// What was pressed once: the question stays while what is around it is shown anew.
let asked = "";

/**
 * A button that acts when it is pressed a second time, for what cannot be undone.
 * @param {{label: string, question: string, name: string, key: string}} words `name` is what a
 *   screen reader says of it, `key` what it is about
 * @param {() => Promise<void>} act
 */
export function twice({ label, question, name, key }, act) {
  const made = button(label, press, { class: "danger" });
  show();
  function show() {
    const isAsked = asked === key;
    made.textContent = isAsked ? question : label;
    made.setAttribute("aria-label", isAsked ? question : name);
  }
  function press() {
    const isSecond = asked === key;
    asked = isSecond ? "" : key;
    show();
    if (!isSecond) return;
    made.disabled = true;
    act().finally(() => (made.disabled = false));
  }
  function left() {
    // An element that is shown anew loses the focus too, and is not there any more.
    if (!made.isConnected || asked !== key) return;
    asked = "";
    show();
  }
  made.addEventListener("blur", () => setTimeout(left));
  return made;
}
