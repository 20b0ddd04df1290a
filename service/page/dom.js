// Small things that every part needs: elements, numbers as people read them.

export const byId = (id) => document.getElementById(id);

/** An element with attributes and children; a text becomes a text node, never markup. */
export function element(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same in SVG. */
export function shape(name, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const MOMENT_MS = 100; // in which a screen reader sees that something was empty
const toTell = new WeakMap(); // timers, by the node that will be filled

/** Shows `message` in `node`, or hides it where there is none; `hint` is a second, quieter line. What
 * is there already stays: a screen reader would say it again. */
export function notify(node, message, hint = "") {
  clearTimeout(toTell.get(node));
  if (message && node.textContent === message + hint) return;
  node.replaceChildren(message ?? "", ...(hint ? [element("span", { class: "note" }, hint)] : []));
  node.hidden = !message;
}

/** The same for what a person just did: said again where it is there already, and said where `node`
 * was hidden until now. */
export function tell(node, message, hint = "") {
  notify(node, null);
  node.hidden = false;
  toTell.set(node, setTimeout(notify, MOMENT_MS, node, message, hint));
}

/** Figures with what each is, as tiles in `list`, a <dl>. */
export function showTiles(list, tiles) {
  list.replaceChildren(...tiles.map(([term, value]) =>
    element("div", {}, element("dt", {}, term), element("dd", {}, value))));
}

const whole = new Intl.NumberFormat("en");

export const count = (value) => whole.format(Math.round(value));

/** "1 text", "1,240 texts". */
export const counted = (value, word) => `${count(value)} ${word}${value === 1 ? "" : "s"}`;

/** A part of `all` with so many digits, never rounded to all or nothing where it is neither. */
export function part(value, all, digits) {
  const shown = value.toFixed(digits);
  const least = 10 ** -digits;
  if (value < all && Number(shown) === all) return `>${(all - least).toFixed(digits)}`;
  if (value > 0 && Number(shown) === 0) return `<${least.toFixed(digits)}`;
  return shown;
}

export const percent = (share) => `${part(100 * share, 100, 1)} %`;

/** Milliseconds, with as many digits as tell something. */
export function milliseconds(value) {
  return `${value < 10 ? value.toFixed(1) : count(value)} ms`;
}

/** A rate or any other number: 0.4, 12, 1,240. */
export const rate = (value) => (value > 0 && value < 10 ? value.toFixed(1) : count(value));

/** The class that colours a label, where it is one that has a colour. */
export const tone = (label) => (["positive", "negative"].includes(label) ? label : "");
