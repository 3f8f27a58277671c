// @ts-check
/** The list of conversations at the side. */

import { button, byId, day, el } from "./dom.js";
import { twice } from "./memory_items.js";

/** Conversations, newest first. */
export class Conversations {
  /**
   * @param {import("./api.js").Api} api
   * @param {import("./chat.js").Chat} chat
   * @param {(id: string) => void} onOpen
   */
  constructor(api, chat, onOpen) {
    this.api = api;
    this.chat = chat;
    this.onOpen = onOpen;
    /** @type {any[]} */
    this.known = [];
    this.nextToken = "";
    byId("more").addEventListener("click", () => this.load(this.nextToken));
  }

  /**
   * Load the newest conversations, or those that follow the ones that are shown.
   * @param {string} [pageToken]
   */
  async load(pageToken = "") {
    await this.chat.guarded(async () => {
      const page = await this.api.conversations(pageToken);
      this.known = pageToken ? [...this.known, ...page.conversations] : page.conversations;
      this.nextToken = page.next_page_token;
      this.render();
    });
  }

  render() {
    byId("conversations").replaceChildren(...this.known.map((each) => this.item(each)));
    byId("more").hidden = !this.nextToken;
  }

  /** @param {any} conversation */
  item(conversation) {
    const name = conversation.title || conversation.opening || "A conversation";
    const isOpen = conversation.id === this.chat.conversationId;
    const open = button(name, () => this.onOpen(conversation.id), {
      class: "conversation",
      "aria-current": String(isOpen),
      title: `${day(conversation.updated_at)}, ${conversation.message_count} messages`,
    });
    const { id } = conversation;
    const words = { label: "×", question: "Delete?", name: `Delete: ${name}`, key: id };
    return el("li", {}, open, twice(words, () => this.remove(id)));
  }

  /** @param {string} id */
  async remove(id) {
    const done = await this.chat.guarded(() => this.api.deleteConversation(id));
    if (!done) return;
    this.known = this.known.filter((each) => each.id !== id);
    if (id === this.chat.conversationId) this.chat.begin();
    this.chat.say("Deleted, with the memories that came from it.");
    this.render();
  }
}
