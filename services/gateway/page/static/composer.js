// @ts-check
/** Where a message is written, or an earlier one is edited. */

import { byId } from "./dom.js";

/** The form below a conversation. */
export class Composer {
  /** @param {import("./chat.js").Chat} chat */
  constructor(chat) {
    this.chat = chat;
    this.text = byId("text");
    /** @type {import("./thread.js").Turn | null} */
    this.replaced = null;
    const form = byId("composer");
    form.addEventListener("submit", (/** @type {Event} */ event) => this.submit(event));
    form.addEventListener("edit", (/** @type {CustomEvent} */ event) => this.edit(event.detail));
    this.text.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => this.key(event));
    byId("cancel-edit").addEventListener("click", () => this.clear());
    byId("stop").addEventListener("click", () => {
      chat.stop();
      this.text.focus();
    });
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    // While an input method composes a character, Enter chooses it.
    const isSend = event.key === "Enter" && !event.shiftKey && !event.isComposing;
    if (isSend) this.submit(event);
    if (event.key === "Escape" && this.replaced) this.clear();
  }

  /** @param {Event} event */
  async submit(event) {
    event.preventDefault();
    const text = this.text.value.trim();
    if (!text || this.chat.running) return;
    const replaced = this.replaced;
    this.clear();
    const isSent = await this.chat.send(text, replaced);
    if (isSent) return;
    if (replaced) this.edit(replaced);
    this.text.value = text; // nothing that was written is lost
  }

  /**
   * Write an earlier message anew.
   * @param {import("./thread.js").Turn} turn
   */
  edit(turn) {
    this.replaced = turn;
    byId("editing").hidden = false;
    this.text.value = turn.text;
    this.text.focus();
  }

  /** Begin with nothing. */
  clear() {
    this.replaced = null;
    byId("editing").hidden = true;
    this.text.value = "";
    this.text.focus();
  }
}
