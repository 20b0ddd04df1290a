// The first tab: one text, under every variant side by side, and what each looked at.

import { post } from "./api.js";
import { byId, element, milliseconds, notify, percent, tell, tone } from "./dom.js";
import { EXAMPLES } from "./examples.js";
import { known, ordered, variantNames } from "./models.js";
import { record } from "./own_requests.js";
import { chosenVariant, keepTokens, showTokens, startTokens } from "./tokens.js";

const PATIENT_MS = 300; // before the page says that it waits

let waiting = null; // timer
let running = null; // AbortController of the comparison under way
let explaining = null; // and of the explanation: a late one would show another model than is chosen
let answered = null; // the text that the cards are about

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
  startTokens(() => {
    if (answered !== null) explain(); // else the answer that comes is explained by the model chosen now
  });
}

async function classify(text) {
  if (!text.trim()) {
    tell(byId("try-error"), "Type a text first.");
    byId("text").focus();
    return;
  }
  running?.abort();
  explaining?.abort();
  running = new AbortController();
  answered = null;
  notify(byId("try-error"), null);
  byId("try-status").textContent = "";
  dim(true, "cards", "agreement", "look");
  wait("Asking the models…");
  const began = performance.now();
  try {
    const answer = await post("compare", { texts: [text] }, running.signal);
    record(answer, performance.now() - began);
    answered = text;
    showCards(answer);
  } catch (error) {
    if (error.name === "AbortError") return;
    // What is left of another text would pass for the answer.
    byId("cards").replaceChildren();
    byId("agreement").hidden = true;
    keepTokens(null);
    notify(byId("try-error"), error.message, error.hint);
  }
  dim(false, "cards", "agreement");
  wait(null);
  if (answered !== null) await explain();
}

/** Shows what the chosen model looked at. */
async function explain() {
  explaining?.abort();
  explaining = new AbortController();
  dim(true, "look");
  wait("Asking what the model looked at…");
  // A model that was chosen may be gone.
  const names = variantNames();
  const chosen = chosenVariant();
  const variant = !names.length || names.includes(chosen) ? chosen : names[0];
  try {
    const body = { texts: [answered], ...(variant && { variant }) };
    showTokens(answered, await post("explain", body, explaining.signal), names);
    notify(byId("try-error"), null);
  } catch (error) {
    if (error.name === "AbortError") return;
    keepTokens(answered);
    notify(byId("try-error"), error.message, error.hint);
  }
  dim(false, "look");
  wait(null);
}

/** Marks what is no answer to what is asked now, or no longer. */
function dim(isOld, ...ids) {
  for (const id of ids) {
    byId(id).classList.toggle("old", isOld);
    byId(id).setAttribute("aria-busy", String(isOld));
  }
}

/** Says what the page waits for, where it takes long; null: for nothing. */
function wait(message) {
  clearTimeout(waiting);
  byId("try-waits").textContent = "";
  if (message) waiting = setTimeout(() => { byId("try-waits").textContent = message; }, PATIENT_MS);
}

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
  const manifest = known()?.variants[name]?.manifest;
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
