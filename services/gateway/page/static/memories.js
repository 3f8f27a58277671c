// @ts-check
/** The list of memories, and correcting one. */

import { byId, uuid } from "./dom.js";
import { memoryItem } from "./memory_items.js";
import { inWords } from "./words.js";

const FOUND = 20;

/** Everything that is remembered: listed, searched, corrected, forgotten. */
export class Memories {
  /**
   * @param {import("./api.js").Api} api
   * @param {(id: string, text: string) => void} onChange a text; "" where it was forgotten
   */
  constructor(api, onChange) {
    this.api = api;
    this.onChange = onChange;
    /** @type {{memory: any, why?: {score: number, scores: Record<string, number>}}[]} */
    this.shown = [];
    this.nextToken = "";
    this.correcting = { id: "", version: 0 };
    this.dialog = byId("memories");
    this.correction = byId("correct");
    byId("memories-open").addEventListener("click", () => this.open());
    byId("more-memories").addEventListener("click", () => this.list(this.nextToken));
    byId("search").addEventListener("submit", (/** @type {Event} */ event) => this.search(event));
    byId("correct-form").addEventListener("submit", (/** @type {Event} */ e) => this.save(e));
    for (const dialog of [this.dialog, this.correction]) {
      dialog.querySelector(".close").addEventListener("click", () => dialog.close());
    }
  }

  /** Show the newest memories. */
  async open() {
    byId("query").value = "";
    this.shown = [];
    this.render();
    this.dialog.showModal();
    await this.list("");
  }

  /** @param {string} pageToken */
  async list(pageToken) {
    await this.#tell(async () => {
      const page = await this.api.memories(pageToken);
      const found = page.memories.map((/** @type {any} */ memory) => ({ memory }));
      this.shown = pageToken ? [...this.shown, ...found] : found;
      this.nextToken = page.next_page_token;
      return this.shown.length ? "Newest first." : "Nothing is remembered yet.";
    });
  }

  /** @param {Event} event */
  async search(event) {
    event.preventDefault();
    const query = byId("query").value.trim();
    if (!query) {
      await this.list("");
      return;
    }
    await this.#tell(async () => {
      const { hits } = await this.api.recall(query, FOUND);
      this.shown = hits.map((/** @type {any} */ hit) => ({ memory: hit.memory, why: hit }));
      this.nextToken = "";
      return hits.length ? "Best first." : "Nothing that is remembered fits.";
    });
  }

  /** @param {string} id */
  async forget(id) {
    await this.#tell(async () => {
      await this.api.forget(id);
      this.changed(id, "");
      return "Forgotten.";
    });
  }

  /**
   * Ask for a memory's right text; what it says now is fetched first.
   * @param {string} id
   */
  async correct(id) {
    byId("correct-error").textContent = "";
    byId("correct-text").value = "";
    this.correction.showModal();
    try {
      await this.#read(id);
    } catch (error) {
      byId("correct-error").textContent = inWords(error);
    }
  }

  /** @param {string} id */
  async #read(id) {
    const { version, text } = await this.api.memory(id);
    this.correcting = { id, version };
    byId("correct-text").value = text;
  }

  /** @param {Event} event */
  async save(event) {
    event.preventDefault();
    const text = byId("correct-text").value.trim();
    const { id, version } = this.correcting;
    if (!text || !id) return;
    try {
      const correction = { request_id: uuid(), text, expected_version: version };
      await this.api.correct(id, correction);
      this.correction.close();
      this.changed(id, text);
    } catch (error) {
      byId("correct-error").textContent = await this.#refused(id, error);
    }
  }

  /**
   * @param {string} id
   * @param {any} error
   */
  async #refused(id, error) {
    if (error.code !== "version_conflict") return inWords(error);
    await this.#read(id).catch(() => {}); // the conflict is what to tell either way
    return `${inWords(error)} This is what it says now.`;
  }

  /**
   * @param {string} id
   * @param {string} text
   */
  changed(id, text) {
    for (const { memory } of this.shown) if (memory.id === id) memory.text = text;
    this.render();
    this.onChange(id, text);
  }

  render() {
    const acts = {
      onForget: (/** @type {string} */ id) => this.forget(id),
      onCorrect: (/** @type {string} */ id) => this.correct(id),
    };
    const items = this.shown.map(({ memory, why }) => memoryItem(memory, acts, why));
    byId("memory-list").replaceChildren(...items);
    byId("more-memories").hidden = !this.nextToken;
  }

  /** @param {() => Promise<string>} work what is said when it is done */
  async #tell(work) {
    const status = byId("memories-status");
    try {
      status.textContent = await work();
      this.render();
    } catch (error) {
      status.textContent = inWords(error);
    }
  }
}
