// The first tab: one text, under every variant side by side, and what each looked at.

import { post } from "./api.js";
import { byId, element, milliseconds, notify, percent, tone } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { record } from "./own_requests.js";
import { showTokens, startTokens } from "./tokens.js";

let models = null;
let running = null; // AbortController of the comparison under way
let explaining = null; // and of the explanation: a late one would show another model than is chosen
let lastText = null;

export function startTry() {
  const form = byId("try-form");
  const field = byId("text");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    classify(field.value);
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  for (const chip of form.querySelectorAll("[data-example]")) {
    chip.addEventListener("click", () => {
      field.value = EXAMPLES[chip.dataset.example];
      classify(field.value);
    });
  }
  document.addEventListener("crisp:models", ({ detail }) => {
    models = detail;
  });
  startTokens((variant) => explain(lastText, variant));
}

async function classify(text) {
  running?.abort();
  explaining?.abort();
  running = new AbortController();
  const { signal } = running;
  const cards = byId("cards");
  notify(byId("try-error"), text.trim() ? null : "Type a text first.");
  if (!text.trim()) {
    byId("text").focus();
    return;
  }
  cards.classList.add("busy");
  const began = performance.now();
  try {
    const answer = await post("compare", { texts: [text] }, signal);
    record(answer, performance.now() - began);
    lastText = text;
    showCards(answer);
    await explain(text);
  } catch (error) {
    if (error.name === "AbortError") return;
    notify(byId("try-error"), error.message, error.hint);
  } finally {
    if (!signal.aborted) cards.classList.remove("busy");
  }
}

async function explain(text, variant) {
  if (text === null) return;
  explaining?.abort();
  explaining = new AbortController();
  const { signal } = explaining;
  try {
    const before = byId("look-variants").querySelector(":checked")?.value;
    const chosen = variant ?? before ?? models?.default;
    const body = chosen ? { texts: [text], variant: chosen } : { texts: [text] };
    const answer = await post("explain", body, signal);
    showTokens(text, answer, variantNames());
  } catch (error) {
    if (error.name === "AbortError") return;
    notify(byId("try-error"), error.message, error.hint);
  }
}

/** The default first: it is what a caller gets who asks for none. */
function ordered(names) {
  return [...names].sort((a, b) => (b === models?.default) - (a === models?.default));
}

const variantNames = () => ordered(models ? Object.keys(models.variants) : []);

function showCards({ comparisons: [{ agree, predictions }], timing }) {
  const names = ordered(Object.keys(predictions));
  const cards = names.map((name) => card(name, predictions[name], timing[name]));
  const says = names.map((name) => `${name}: ${predictions[name].label}, ${percent(predictions[name].score)}`);
  byId("cards").replaceChildren(...cards);
  byId("agreement").hidden = agree;
  byId("agreement").textContent = "The models disagree on this text.";
  byId("try-status").textContent = `${says.join("; ")}.`;
}

function card(name, prediction, timing) {
  const manifest = models?.variants[name]?.manifest;
  const fill = element("div", { class: `fill ${tone(prediction.label)}` });
  fill.style.setProperty("--share", prediction.score);
  return element(
    "article",
    { class: "panel card", "aria-label": name, "data-variant": name },
    element(
      "header", {},
      element("h2", {}, name),
      element("p", { class: "note" }, manifest ? described(manifest) : ""),
    ),
    element(
      "p", { class: `verdict ${tone(prediction.label)}` },
      element("span", {}, prediction.label),
      element("span", { class: "confidence" }, percent(prediction.score)),
    ),
    element("div", { class: "track", "aria-hidden": "true" }, fill),
    element(
      "dl", { class: "figures" },
      figure("Inference", milliseconds(timing.inference_ms)),
      figure("Tokens", `${prediction.tokens}${prediction.truncated ? ", cut" : ""}`),
      timing.queue_ms >= 1 ? figure("Queue", milliseconds(timing.queue_ms)) : null,
    ),
  );
}

const figure = (term, value) => element("div", {}, element("dt", {}, term), element("dd", {}, value));

/** How a model saves work, in a few words. */
function described({ attention, pruning }) {
  const links = attention.name === "dense" ? "attends to everything" : `${attention.name} attention`;
  return pruning ? `${links}, drops tokens as it reads` : links;
}
