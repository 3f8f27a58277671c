// @ts-check
/** The conversation that is open: sending, streaming, stopping, asking again, editing. */

import { byId, keepingFocus, uuid } from "./dom.js";
import {
  changeMemory,
  fillIn,
  newReply,
  newTurn,
  requestOf,
  shownReply,
  storedIds,
  take,
  turnsOf,
} from "./thread.js";
import { showText, turnView } from "./turn_view.js";
import { inWords, isRefusedKey } from "./words.js";

// Memories of one reply among which its scores are looked for, and how much of a message asks.
const SCORED = 100;
const QUERY_CHARS = 2000;
// A reader who has scrolled up further than this is left where they are.
const NEAR_END_PX = 80;

/**
 * @typedef {import("./thread.js").Turn} Turn
 * @typedef {import("./thread.js").Reply} Reply
 * @typedef {{onSignedOut: (why: string) => void, onStored: (id: string) => void,
 *   onCorrect: (id: string) => void}} Outside
 */

/** One conversation on the page. */
export class Chat {
  /**
   * @param {import("./api.js").Api} api
   * @param {Outside} outside
   */
  constructor(api, outside) {
    this.api = api;
    this.outside = outside;
    this.conversationId = "";
    this.isPrivate = false;
    /** @type {Turn[]} */
    this.turns = [];
    /** @type {any[]} messages as they were stored when they were loaded, oldest first */
    this.stored = [];
    /** @type {AbortController | null} */
    this.running = null;
    this.earlierToken = "";
    this.thread = byId("thread");
    this.acts = {
      onRegenerate: (/** @type {Turn} */ turn) => this.ask(turn, newReply()),
      onRetry: (/** @type {Turn} */ turn) => this.retry(turn),
      onEdit: (/** @type {Turn} */ turn) => byId("composer").dispatchEvent(editing(turn)),
      onShow: (/** @type {Turn} */ turn, /** @type {number} */ index) => {
        turn.shown = index;
        this.render();
      },
      onWhy: (/** @type {Turn} */ turn, /** @type {Reply} */ reply) => this.explain(turn, reply),
      onScores: (/** @type {Turn} */ turn, /** @type {Reply} */ reply) => this.score(turn, reply),
      onForget: (/** @type {string} */ id) => this.forget(id),
      onCorrect: outside.onCorrect,
    };
  }

  /** @param {{isPrivate?: boolean}} [how] */
  begin({ isPrivate = false } = {}) {
    this.stop();
    this.running = null;
    this.isPrivate = isPrivate;
    this.conversationId = `page-${uuid()}`;
    this.turns = [];
    this.stored = [];
    this.earlierToken = "";
    this.say("");
    this.render();
  }

  /**
   * Show a stored conversation, from its newest messages on.
   * @param {string} id
   */
  async open(id) {
    this.begin();
    this.conversationId = id;
    await this.guarded(async () => {
      const page = await this.api.messages(id);
      if (this.conversationId !== id) return; // another one was opened meanwhile
      this.#showStored(page);
      this.scrollToEnd();
      await this.#fillInLast();
    });
  }

  /** Show the messages before those that are shown. */
  async earlier() {
    await this.guarded(async () => {
      this.#showStored(await this.api.messages(this.conversationId, this.earlierToken));
    });
  }

  /** @param {{messages: any[], next_page_token: string}} page newest first */
  #showStored(page) {
    const live = this.turns.filter((turn) => turn.replies.some((each) => each.state !== "stored"));
    this.stored = [...page.messages.reverse(), ...this.stored];
    const ids = new Set(live.map((turn) => turn.messageId).filter(Boolean));
    this.turns = [...turnsOf(this.stored).filter((turn) => !ids.has(turn.messageId)), ...live];
    this.earlierToken = page.next_page_token;
    this.render();
  }

  /** The newest reply is shown with what was told when it came; the others when asked. */
  async #fillInLast() {
    const reply = this.turns.length ? shownReply(this.turns[this.turns.length - 1]) : undefined;
    if (!reply?.id) return;
    const why = await this.api.why({ message_id: reply.id }).catch(() => null);
    if (!why) return; // an imported reply has no explanation
    fillIn(reply, why);
    this.render();
  }

  /**
   * Send a message; in place of another, which is forgotten first.
   * @param {string} text
   * @param {Turn | null} replaced
   */
  async send(text, replaced) {
    if (replaced && !(await this.guarded(() => this.#forgetTurn(replaced)))) return false;
    const how = { isPrivate: this.isPrivate, isEdit: Boolean(replaced) };
    const turn = newTurn(text, this.turns, how);
    this.turns.push(turn);
    void this.ask(turn, newReply());
    return true;
  }

  /** @param {Turn} turn */
  async #forgetTurn(turn) {
    if (!turn.isPrivate) {
      const { messages } = await this.api.messages(this.conversationId).catch(noneYet);
      for (const id of storedIds(turn, messages)) {
        await this.api.forget(id).catch(notThere);
        this.#emptyStored(id);
      }
    }
    this.turns = this.turns.filter((each) => each !== turn);
    this.render();
  }

  /** @param {Turn} turn */
  async retry(turn) {
    const failed = shownReply(turn);
    if (!failed) return;
    const again = { ...newReply(), requestId: failed.requestId };
    turn.replies.splice(turn.shown, 1);
    await this.ask(turn, again);
  }

  /**
   * Ask for a reply to a turn, and show it as it comes.
   * @param {Turn} turn
   * @param {Reply} reply
   */
  async ask(turn, reply) {
    if (this.running) return;
    const running = (this.running = new AbortController());
    turn.shown = turn.replies.push(reply) - 1;
    this.render();
    this.scrollToEnd();
    this.say("The reply is being written.");
    try {
      const request = requestOf(turn, reply, this.conversationId);
      for await (const event of this.api.reply(request, running.signal)) {
        take(turn, reply, event);
        if (running === this.running) this.#showEvent(event, reply);
      }
      if (running === this.running) this.say("The reply is complete.");
    } catch (error) {
      this.#failed(reply, error, running);
    } finally {
      if (running === this.running) {
        this.running = null;
        this.render();
        if (!turn.isPrivate) this.outside.onStored(this.conversationId);
      }
    }
  }

  /**
   * @param {any} event
   * @param {Reply} reply
   */
  #showEvent(event, reply) {
    const isNear = this.isNearEnd();
    if (event.type === "decision" || event.type === "memories") this.render();
    const view = this.thread.lastElementChild;
    if (view) showText(view, reply);
    if (isNear) this.scrollToEnd();
  }

  /**
   * @param {Reply} reply
   * @param {unknown} error
   * @param {AbortController} running
   */
  #failed(reply, error, running) {
    reply.state = running.signal.aborted ? "stopped" : "failed";
    reply.error = error;
    if (running !== this.running) return;
    this.say(reply.state === "stopped" ? "Stopped." : inWords(error));
    if (isRefusedKey(error)) this.outside.onSignedOut(inWords(error));
  }

  /** Stop the reply that is being written: the mesh stops too. */
  stop() {
    this.running?.abort();
  }

  /**
   * @param {Turn} turn
   * @param {Reply} reply
   */
  async explain(turn, reply) {
    reply.isExplained = !reply.isExplained;
    reply.isListed = reply.isExplained || reply.isListed;
    if (reply.isExplained) {
      await this.guarded(async () => {
        const of = reply.id ? { message_id: reply.id } : { request_id: reply.requestId };
        fillIn(reply, await this.api.why(of));
      });
      reply.isExplained = Boolean(reply.why);
    }
    this.render();
    if (reply.isExplained && reply.memories.length) await this.score(turn, reply);
  }

  /**
   * Find out what each memory's score is made of.
   * @param {Turn} turn
   * @param {Reply} reply
   */
  async score(turn, reply) {
    if (!turn.text || reply.scores) return;
    await this.guarded(async () => {
      const found = await this.api.recall(turn.text.slice(0, QUERY_CHARS).trim(), SCORED);
      const scored = found.hits.map((/** @type {any} */ hit) => [hit.memory.id, hit.scores]);
      reply.scores = Object.fromEntries(scored);
      this.render();
    });
  }

  /** @param {string} id */
  async forget(id) {
    const done = await this.guarded(() => this.api.forget(id));
    if (!done) return;
    this.memoryChanged(id, "");
    this.say("Forgotten.");
  }

  /**
   * A memory was forgotten (no text) or corrected, here or in the list of memories.
   * @param {string} id
   * @param {string} text
   */
  memoryChanged(id, text) {
    changeMemory(this.turns, id, text);
    if (!text) this.#emptyStored(id);
    this.render();
  }

  /** @param {string} id */
  #emptyStored(id) {
    for (const message of this.stored) if (message.id === id) message.text = "";
  }

  /**
   * Do something, saying in words what goes wrong; whether it was done.
   * @param {() => Promise<any>} work
   */
  async guarded(work) {
    try {
      await work();
      return true;
    } catch (error) {
      if (isRefusedKey(error)) this.outside.onSignedOut(inWords(error));
      this.say(inWords(error), true);
      return false;
    }
  }

  /** Show everything anew; what is being written goes on in its new place. */
  render() {
    const isBusy = Boolean(this.running);
    const last = this.turns.length - 1;
    const views = this.turns.map((turn, index) =>
      turnView(turn, { isLast: index === last, isBusy, acts: this.acts }),
    );
    keepingFocus(this.thread, () => this.thread.replaceChildren(...views));
    byId("private-note").hidden = !this.isPrivate;
    byId("private").checked = this.isPrivate;
    byId("earlier").hidden = !this.earlierToken;
    byId("send").hidden = isBusy;
    byId("stop").hidden = !isBusy;
  }

  /**
   * @param {string} text
   * @param {boolean} [isError]
   */
  say(text, isError = false) {
    const status = byId("status");
    status.textContent = text;
    status.classList.toggle("error", isError);
  }

  isNearEnd() {
    const { scrollHeight, scrollTop, clientHeight } = byId("scroll");
    return scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
  }

  scrollToEnd() {
    const scroll = byId("scroll");
    scroll.scrollTop = scroll.scrollHeight;
  }
}

/** @param {Turn} turn */
function editing(turn) {
  return new CustomEvent("edit", { detail: turn });
}

/** @param {any} error */
function noneYet(error) {
  if (error.status !== 404) throw error;
  return { messages: [] }; // nothing of this conversation was stored
}

/** @param {any} error */
function notThere(error) {
  if (error.status !== 404) throw error;
}
