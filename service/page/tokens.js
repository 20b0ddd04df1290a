// The text itself, its tokens coloured by the attention that they received in one layer, those struck
// through that the model had dropped by then.

import { byId, count, element, part, shape } from "./dom.js";

let shown = null; // { text, characters, explanation, variant }

/** `onVariant` is called when a person asks for another variant. */
export function startTokens(onVariant) {
  byId("layer").addEventListener("input", draw);
  byId("look-variants").addEventListener("change", onVariant);
  byId("token-table").addEventListener("toggle", draw);
  new ResizeObserver(drawFunnel).observe(byId("layer")); // also when its tab is seen again
}

/** The name of the variant that a person asks for, where there is a choice. */
export const chosenVariant = () => byId("look-variants").querySelector(":checked")?.value;

/** Shows the first explanation of `answer`, of POST /explain for `text`; `names` are all variants. */
export function showTokens(text, answer, names) {
  const [explanation] = answer.explanations;
  // Offsets count code points, where JavaScript's strings count halves of surrogate pairs.
  shown = { text, characters: Array.from(text), explanation, variant: answer.variant };
  const slider = byId("layer");
  const layers = explanation.layers.length;
  const atEnd = byId("look").hidden || slider.value === slider.max;
  slider.max = layers;
  if (atEnd || Number(slider.value) > layers) slider.value = layers;
  showVariants(names.length ? names : [answer.variant], answer.variant);
  byId("look").hidden = false;
  draw();
}

/** Where no answer came: goes back to what is shown of `text`, or hides it where it is of another one. */
export function keepTokens(text) {
  if (shown?.text === text) {
    choose(shown.variant);
  } else {
    shown = null;
    byId("look").hidden = true;
  }
}

function showVariants(names, chosen) {
  const box = byId("look-variants");
  const known = [...box.querySelectorAll("input")].map((input) => input.value);
  if (known.join() !== names.join()) {
    const choices = names.map((name) =>
      element("label", {}, element("input", { type: "radio", name: "look", value: name }), name));
    box.replaceChildren(box.firstElementChild, ...choices);
  }
  choose(chosen);
}

function choose(name) {
  for (const input of byId("look-variants").querySelectorAll("input")) input.checked = input.value === name;
}

function draw() {
  if (!shown) return;
  const { characters, explanation } = shown;
  const number = Number(byId("layer").value);
  const layer = number - 1;
  byId("layer-number").textContent = number;
  byId("layer").setAttribute("aria-valuetext", `layer ${number} of ${explanation.layers.length}`);
  byId("layer-says").textContent = sentence(explanation, layer);
  drawFunnel();
  const heat = heatOf(explanation.tokens, layer);
  const parts = [];
  let written = 0;
  const first = explanation.tokens[0];
  if (first.special) parts.push(piece(first, first.token, layer, heat));
  for (const token of explanation.tokens) {
    // Several tokens may be of one character, such as a Korean one: it is shown once.
    if (token.special || token.end <= written) continue;
    const start = Math.max(token.start, written);
    if (start > written) parts.push(characters.slice(written, start).join(""));
    parts.push(piece(token, characters.slice(start, token.end).join(""), layer, heat));
    written = token.end;
  }
  const end = explanation.tokens.at(-1);
  const rest = characters.slice(written).join("");
  if (!explanation.prediction.truncated) parts.push(rest);
  if (end.special && end !== first) parts.push(piece(end, end.token, layer, heat));
  if (explanation.prediction.truncated) parts.push(element("span", { class: "unread" }, rest));
  byId("tokens").replaceChildren(...parts);
  if (byId("token-table").open) drawTable(explanation, layer);
}

/** What share of full colour a token gets: its attention against the highest of the text's words. */
function heatOf(tokens, layer) {
  const words = tokens.filter((token) => !token.special && token.received.length > layer);
  const highest = Math.max(...words.map((token) => token.received[layer]), Number.EPSILON);
  return (token) => Math.min(1, Math.sqrt(token.received[layer] / highest));
}

function piece(token, text, layer, heat) {
  const classes = ["token"];
  if (token.special) classes.push("special");
  if (token.received.length <= layer) classes.push("dropped");
  else if (token.dropped_after === layer) classes.push("dropped-here");
  const node = element("span", { class: classes.join(" "), title: title(token, layer) }, text);
  if (token.received.length > layer) node.style.setProperty("--heat-share", heat(token).toFixed(3));
  return node;
}

function title(token, layer) {
  const dropped = token.dropped_after === null ? "" : `, dropped after layer ${token.dropped_after + 1}`;
  const received = token.received[layer];
  return received === undefined ? `${token.token}${dropped}` : `${token.token}: ${attention(received)}${dropped}`;
}

const attention = (received) => part(received, 1, 3);

function sentence({ layers, prediction }, layer) {
  const { queries, tokens, passed_on: passedOn } = layers[layer];
  const first = layers[0].tokens;
  const left = tokens === first ? `all ${count(tokens)} tokens` : `${count(tokens)} of ${count(first)} tokens`;
  const who = queries === "cls" ? "attention that [CLS], which the answer is read from, gave to" : "attention received by";
  const next = passedOn < tokens ? ` Of these, ${count(tokens - passedOn)} are dropped here.` : "";
  const cut = prediction.truncated ? " The text is longer than the model reads; the rest is in italics." : "";
  return `Layer ${layer + 1}: ${who} ${left}.${next}${cut}`;
}

/** A bar for each layer: how many tokens reached it. */
function drawFunnel() {
  const width = byId("layer").clientWidth;
  if (!shown || !width) return;
  const { layers } = shown.explanation;
  const chosen = Number(byId("layer").value) - 1;
  const height = 56;
  const svg = byId("funnel");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const thumb = 16; // the slider's ends lie half a thumb inside it
  const step = layers.length > 1 ? (width - thumb) / (layers.length - 1) : 0;
  const bar = Math.min(36, Math.max(8, step * 0.6));
  const bars = layers.flatMap((layer, index) => {
    const tall = Math.max(2, (height - 16) * layer.tokens / layers[0].tokens);
    const centre = layers.length > 1 ? thumb / 2 + index * step : width / 2;
    const x = Math.min(width - bar, Math.max(0, centre - bar / 2));
    return [
      shape("rect", { class: index === chosen ? "here" : "", x, y: height - tall, width: bar, height: tall, rx: 2 }),
      shape("text", { x: x + bar / 2, y: height - tall - 4 }, count(layer.tokens)),
    ];
  });
  svg.replaceChildren(...bars);
}

function drawTable({ tokens }, layer) {
  const head = ["Token", `Attention, layer ${layer + 1}`, "Dropped after"];
  const rows = tokens.map((token) =>
    element(
      "tr", {},
      element("th", { scope: "row" }, token.token),
      element("td", { class: "number" }, layer < token.received.length ? attention(token.received[layer]) : "–"),
      element("td", {}, token.dropped_after === null ? "–" : `layer ${token.dropped_after + 1}`),
    ));
  const titles = head.map((title) => element("th", { scope: "col" }, title));
  byId("token-table").querySelector(".scroll").replaceChildren(
    element("table", {}, element("thead", {}, element("tr", {}, ...titles)), element("tbody", {}, ...rows)));
}
