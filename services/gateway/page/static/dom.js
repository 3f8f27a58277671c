// @ts-check
/** Making elements. What comes from outside becomes text, never markup. */

/**
 * The element with an id; an error if the page has none.
 * @param {string} id
 * @returns {any}
 */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/**
 * A new element. `props` are properties or attributes by name; functions listen to that event.
 * Children that are strings become text; null ones are left out.
 * @param {string} tag
 * @param {Record<string, any>} [props]
 * @param {...(Node | string | null)} children
 * @returns {any}
 */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (typeof value === "boolean" && name in node) /** @type {any} */ (node)[name] = value;
    else node.setAttribute(name, String(value));
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

/**
 * A button that does something.
 * @param {string} label
 * @param {(event: Event) => void} act
 * @param {Record<string, any>} [props]
 */
export function button(label, act, props = {}) {
  return el("button", { type: "button", click: act, ...props }, label);
}

/**
 * A random UUID. `crypto.randomUUID` is missing where a page came over plain HTTP.
 * @returns {string}
 */
export function uuid() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/**
 * A date as people read it; empty for none.
 * @param {string | null} time RFC 3339
 * @returns {string}
 */
export function day(time) {
  const options = /** @type {const} */ ({ year: "numeric", month: "short", day: "numeric" });
  return time ? new Date(time).toLocaleDateString(undefined, options) : "";
}

/**
 * Milliseconds as people read them.
 * @param {number | null} ms
 * @returns {string}
 */
export function seconds(ms) {
  if (ms === null) return "";
  return ms < 1000 ? `${ms} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/**
 * Make an element's children anew and leave the focus where it was: on the same control of the same
 * child, if there still is one.
 * @param {Element} parent
 * @param {() => void} renew
 */
export function keepingFocus(parent, renew) {
  const held = document.activeElement;
  const place = [...parent.children].findIndex((child) => child.contains(held));
  const number = place < 0 ? -1 : controlsOf(parent.children[place]).indexOf(held);
  renew();
  if (number < 0 || !parent.children[place]) return;
  /** @type {any} */ (controlsOf(parent.children[place])[number])?.focus();
}

/**
 * @param {Element} parent
 * @returns {(Element | null)[]}
 */
function controlsOf(parent) {
  return [...parent.querySelectorAll("button, summary, a")];
}
