// @ts-check
/** What went wrong, in words for people. */

import { ApiError, ConnectionLost } from "./api.js";

/** @type {Record<string, string>} */
const BY_CODE = {
  invalid_api_key: "This key was refused. Check it, or ask whoever runs the mesh for another.",
  login_rate_limited: "Too many keys were tried from here.",
  overloaded: "The mesh is busy.",
  dependency_unavailable: "A part of the mesh is away.",
  draining: "The mesh is being restarted.",
  model_unavailable: "No model could answer.",
  model_bad_response: "The model answered nonsense.",
  model_refused: "The model refused to answer this.",
  storage_full: "The mesh has no room left to store anything.",
  deadline_exceeded: "The answer did not come in time.",
  context_length_exceeded: "This is too long for the model.",
  turn_superseded: "This message was asked again elsewhere; the newer answer counts.",
  version_conflict: "This memory was changed elsewhere since it was shown.",
  not_found: "It is no longer there: forgotten or deleted elsewhere.",
  request_id_reused: "This message was sent before with another text.",
};

/**
 * An error as one or two sentences.
 * @param {unknown} error
 * @returns {string}
 */
export function inWords(error) {
  if (error instanceof ConnectionLost) {
    return "The mesh cannot be reached. Check your connection, and that it is running.";
  }
  if (!(error instanceof ApiError)) return "Something went wrong in this page.";
  const said = BY_CODE[error.code] ?? byStatus(error);
  return error.retryAfterS ? `${said} Try again in ${Math.ceil(error.retryAfterS)} s.` : said;
}

/**
 * Whether the key is no good (any more).
 * @param {unknown} error
 * @returns {boolean}
 */
export function isRefusedKey(error) {
  return error instanceof ApiError && error.status === 401;
}

/** @param {ApiError} error */
function byStatus(error) {
  if (error.status === 403) return "This key may not do that.";
  if (error.status === 413) return "This is too large.";
  if (error.status === 429) return BY_CODE.overloaded;
  if (error.status === 502 || error.status === 503) return BY_CODE.dependency_unavailable;
  if (error.status === 400) return `This cannot be sent. ${error.message}`;
  return "Something went wrong in the mesh.";
}

/** @type {Record<string, string>} */
const STAGES = {
  queued: "Waiting for its turn …",
  recalling: "Remembering …",
  waking: "Waking a model …",
  generating: "Writing …",
};

/**
 * What a reply is at, in words.
 * @param {string} stage
 * @returns {string}
 */
export function stageInWords(stage) {
  return STAGES[stage] ?? "";
}
