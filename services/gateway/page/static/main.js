// @ts-check
/** The page's beginning: signing in and out, and putting its parts together. */

import { Api } from "./api.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { Conversations } from "./conversations.js";
import { byId } from "./dom.js";
import { Memories } from "./memories.js";
import { inWords } from "./words.js";

// For this tab alone, until it is closed: a reload keeps them, another tab or visit does not.
const KEY = "echomesh.key";
const CONVERSATION = "echomesh.conversation";
// What an HTTP header can carry.
const PLAIN = /^[\x21-\x7e]+$/;

/**
 * Sign in by a key and show the conversation; say in words why not.
 * @param {string} key
 */
async function signIn(key) {
  const failed = byId("sign-in-error");
  failed.textContent = "";
  if (!PLAIN.test(key)) {
    failed.textContent = "This is no API key.";
    return;
  }
  const api = new Api(key);
  try {
    await api.session();
  } catch (error) {
    failed.textContent = inWords(error);
    return;
  }
  sessionStorage.setItem(KEY, key);
  byId("key").value = "";
  await start(api);
}

/**
 * Forget the key; the page is loaded anew, so that nothing of it stays in memory either.
 * @param {string} [why]
 */
function signOut(why = "") {
  sessionStorage.clear();
  if (why) sessionStorage.setItem("echomesh.why", why);
  location.reload();
}

/** @param {Api} api */
async function start(api) {
  const chat = new Chat(api, {
    onSignedOut: signOut,
    onStored: (id) => {
      sessionStorage.setItem(CONVERSATION, id);
      void conversations.load();
    },
    onCorrect: (id) => memories.correct(id),
  });
  const composer = new Composer(chat);
  const conversations = new Conversations(api, chat, (id) => open(id));
  const memories = new Memories(api, (id, text) => chat.memoryChanged(id, text));

  /** @param {string} id */
  async function open(id) {
    composer.clear();
    showSide(false);
    sessionStorage.setItem(CONVERSATION, id);
    await chat.open(id);
    conversations.render();
  }
  /** @param {boolean} isPrivate */
  function beginAnew(isPrivate) {
    sessionStorage.removeItem(CONVERSATION);
    chat.begin({ isPrivate });
    conversations.render();
    showSide(false);
    composer.clear();
  }
  byId("new").addEventListener("click", () => beginAnew(false));
  byId("private").addEventListener("change", () => beginAnew(byId("private").checked));
  byId("earlier").addEventListener("click", () => chat.earlier());
  byId("sign-out").addEventListener("click", () => signOut());
  byId("menu").addEventListener("click", () => showSide(!byId("side").classList.contains("open")));

  byId("sign-in").hidden = true;
  byId("app").hidden = false;
  const last = sessionStorage.getItem(CONVERSATION);
  if (last) await open(last);
  else beginAnew(false);
  await conversations.load();
}

/**
 * On a phone the list of conversations lies over the chat, until it is put away.
 * @param {boolean} isOpen
 */
function showSide(isOpen) {
  byId("side").classList.toggle("open", isOpen);
  byId("menu").setAttribute("aria-expanded", String(isOpen));
}

byId("sign-in-form").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  void signIn(byId("key").value.trim());
});
const kept = sessionStorage.getItem(KEY);
byId("sign-in").hidden = Boolean(kept);
if (kept) {
  await start(new Api(kept));
} else {
  byId("sign-in-error").textContent = sessionStorage.getItem("echomesh.why") ?? "";
  sessionStorage.removeItem("echomesh.why");
  byId("key").focus();
}
