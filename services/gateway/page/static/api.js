// @ts-check
/** Calls of the gateway: JSON, and the events of a reply. The key goes along as a bearer. */

const API = "api/";
// A reply whose connection breaks, or whose part of the mesh does, is asked for again with the same
// request_id, which never answers twice: a finished one is replayed, an unfinished one made anew.
const RECONNECTS = 5;
const PAUSE_MS = 500;
const PAUSE_MAX_MS = 4000;

/** What the gateway refused, or could not do. */
export class ApiError extends Error {
  /**
   * @param {number} status 0 for an error in the middle of a stream
   * @param {{message?: string, code?: string, param?: string | null}} told
   * @param {number} [retryAfterS] when another try may succeed
   */
  constructor(status, told, retryAfterS = 0) {
    super(told.message ?? "no reason was given");
    this.status = status;
    this.code = told.code ?? "";
    this.param = told.param ?? null;
    this.retryAfterS = retryAfterS;
  }
}

/** The gateway did not answer at all, or fell silent. */
export class ConnectionLost extends Error {}

const PASSING = ["dependency_unavailable", "draining"];

/**
 * Whether the way to the reply failed, and not the reply.
 * @param {any} error
 */
function isPassing(error) {
  return error instanceof ConnectionLost || PASSING.includes(error.code);
}

/** The gateway, for one key. */
export class Api {
  /** @param {string} key */
  constructor(key) {
    this.key = key;
  }

  /** Who the key is of; an ApiError of status 401 if it is refused. */
  session() {
    return this.#json("GET", "session");
  }

  /** @param {string} [pageToken] */
  conversations(pageToken = "") {
    return this.#json("GET", "conversations", { page_token: pageToken });
  }

  /** @param {string} id */
  deleteConversation(id) {
    return this.#json("DELETE", "conversations", { conversation_id: id });
  }

  /**
   * A page of messages, newest first.
   * @param {string} conversationId
   * @param {string} [pageToken]
   */
  messages(conversationId, pageToken = "") {
    const query = { conversation_id: conversationId, page_token: pageToken, page_size: "50" };
    return this.#json("GET", "messages", query);
  }

  /** @param {string} [pageToken] */
  memories(pageToken = "") {
    return this.#json("GET", "memories", { page_token: pageToken });
  }

  /**
   * @param {string} query
   * @param {number} limit
   */
  recall(query, limit) {
    return this.#json("POST", "memories/recall", {}, { query, limit });
  }

  /** @param {string} id */
  memory(id) {
    return this.#json("GET", `memories/${encodeURIComponent(id)}`);
  }

  /**
   * @param {string} id
   * @param {{request_id: string, text: string, expected_version: number}} correction
   */
  correct(id, correction) {
    return this.#json("PATCH", `memories/${encodeURIComponent(id)}`, {}, correction);
  }

  /** @param {string} id */
  forget(id) {
    return this.#json("DELETE", `memories/${encodeURIComponent(id)}`);
  }

  /**
   * Why a reply is as it is, by its request or by a message of its turn.
   * @param {{request_id?: string, message_id?: string}} of
   */
  why(of) {
    return this.#json("GET", "why", of);
  }

  /**
   * The events of a reply; `{type: "lost"}` each time the connection is made anew.
   * @param {object} body
   * @param {AbortSignal} signal stops the reply
   * @returns {AsyncGenerator<any>}
   */
  async *reply(body, signal) {
    for (let tries = 0; ; tries += 1) {
      try {
        for await (const event of this.#events(body, signal)) {
          yield event;
          if (event.type === "final") return;
        }
        throw new ConnectionLost("the reply broke off");
      } catch (error) {
        if (!isPassing(error) || tries >= RECONNECTS) throw error;
        yield { type: "lost" };
        await pause(Math.min(PAUSE_MAX_MS, PAUSE_MS * 2 ** tries), signal);
      }
    }
  }

  /**
   * @param {object} body
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<any>}
   */
  async *#events(body, signal) {
    const answer = await this.#fetch("POST", "reply", {}, body, signal);
    if (!answer.body) throw new ConnectionLost("the reply has no body");
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let held = "";
    try {
      for (;;) {
        const { done, value } = await orLost(reader.read(), signal);
        if (done) return;
        const parts = (held + value).split("\n\n");
        held = parts.pop() ?? "";
        for (const part of parts) yield eventOf(part);
      }
    } finally {
      reader.cancel().catch(() => {}); // it may have failed already
    }
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {Record<string, string>} [query]
   * @param {object} [body]
   * @returns {Promise<any>}
   */
  async #json(method, path, query = {}, body = undefined) {
    return (await this.#fetch(method, path, query, body)).json();
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {Record<string, string>} query
   * @param {object} [body]
   * @param {AbortSignal} [signal]
   */
  async #fetch(method, path, query, body, signal) {
    const given = Object.entries(query).filter(([, value]) => value !== "");
    const search = given.length ? `?${new URLSearchParams(given)}` : "";
    /** @type {Record<string, string>} */
    const headers = { authorization: `Bearer ${this.key}` };
    if (body) headers["content-type"] = "application/json";
    const asked = fetch(API + path + search, {
      method,
      headers,
      body: body ? JSON.stringify(body) : undefined,
      signal,
      cache: "no-store",
      credentials: "omit",
    });
    const answer = await orLost(asked, signal);
    if (!answer.ok) throw await refused(answer);
    return answer;
  }
}

/** @param {Response} answer */
async function refused(answer) {
  const told = await answer.json().catch(() => ({})); // a proxy's own error is no JSON
  const retryAfterS = Number(answer.headers.get("retry-after")) || 0;
  return new ApiError(answer.status, told.error ?? {}, retryAfterS);
}

/**
 * The result of network work; its failure as ConnectionLost, unless it was stopped.
 * @template T
 * @param {Promise<T>} work
 * @param {AbortSignal} [signal]
 * @returns {Promise<T>}
 */
async function orLost(work, signal) {
  try {
    return await work;
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ConnectionLost("the gateway cannot be reached");
  }
}

/** @param {string} part one server-sent event */
function eventOf(part) {
  const event = JSON.parse(part.replace(/^data: /, ""));
  if (event.type === "error") throw new ApiError(0, event.error, event.retry_after_s ?? 0);
  return event;
}

/**
 * @param {number} ms
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
