// The second tab: lines or a file in, a table and a CSV out.

import { get } from "./api.js";
import { source, startInput } from "./batch_input.js";
import { Outcome } from "./batch_outcome.js";
import { run } from "./batch_run.js";
import { progressOf, showEnd } from "./batch_view.js";
import { byId, element, notify, tell } from "./dom.js";
import { variantNames } from "./models.js";
import { pause } from "./patience.js";

let maxTexts = null; // of one request, as the service has said
let running = null; // AbortController
let outcome = null;
let saving = false; // its CSV
let isLost = false; // whether results would be, with this page

export function startBatch() {
  byId("batch-form").addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
  byId("batch-stop").addEventListener("click", () => running.abort());
  byId("batch-go-on").addEventListener("click", goOn);
  byId("download").addEventListener("click", download);
  startInput();
  document.addEventListener("crisp:models", showVariants);
  addEventListener("beforeunload", (event) => {
    if (running || isLost) event.preventDefault(); // the browser asks
  });
}

function showVariants() {
  const names = variantNames();
  const options = names.map((name) => element("option", { value: name }, name));
  if (names.length > 1) options.push(element("option", { value: "" }, names.length === 2 ? "both" : "all"));
  const select = byId("batch-variant");
  const chosen = select.options.length > 1 ? select.value : null;
  select.replaceChildren(...options);
  if (options.some(({ value }) => value === chosen)) select.value = chosen;
}

/** How many texts the service takes in a request, or how many it mostly does. */
async function limit(signal) {
  const described = maxTexts ? null : await get("docs.json", { signal }).catch(() => null);
  maxTexts ??= described?.components?.schemas?.PredictRequest?.properties?.texts?.maxItems ?? null;
  return maxTexts ?? 64;
}

function start() {
  const given = source();
  if (!given.rows.length) {
    tell(byId("batch-error"), given.none);
    return;
  }
  outcome = new Outcome(given, byId("batch-variant").value || null);
  goOn();
}

/** Asks for the rows that have no result yet. */
async function goOn() {
  notify(byId("batch-error"), null);
  running = new AbortController();
  const { signal } = running;
  setRunning(true);
  const progress = progressOf(outcome);
  const began = performance.now() - outcome.ms;
  const spend = () => {
    outcome.ms = performance.now() - began;
  };
  progress();
  try {
    const options = { variant: outcome.variant, maxTexts: await limit(signal), signal, onWait: progress };
    // A request at a time: between two of them the page can draw, and hear of Stop.
    for await (const results of run(outcome.pending(), options)) {
      for (const { index, ...result } of results) outcome.put(index, result);
      spend();
      progress();
    }
  } catch (error) {
    if (error.name !== "AbortError") notify(byId("batch-error"), error.message, error.hint);
  }
  spend();
  showEnd(outcome);
  setRunning(false);
  running = null;
  isLost = outcome.answered > 0;
}

function setRunning(isRunning) {
  const focused = document.activeElement;
  byId("batch-run").disabled = isRunning;
  byId("batch-stop").hidden = !isRunning;
  byId("batch-progress").hidden = false;
  byId("batch-go-on").hidden = isRunning || outcome.done === outcome.total;
  byId("download").hidden = isRunning || !outcome.done;
  // Where the button is gone that a person pressed, the next one has the focus.
  const buttons = ["batch-stop", "batch-go-on", "download", "batch-run"].map(byId);
  if (buttons.includes(focused)) buttons.find((button) => !button.hidden && !button.disabled).focus();
}

async function download() {
  if (saving) return;
  saving = true;
  const saved = outcome;
  const pieces = [];
  for (const piece of saved.csv()) {
    pieces.push(piece);
    await pause(0); // many rows take seconds
  }
  saving = false;
  if (outcome === saved) isLost = false;
  const address = URL.createObjectURL(new Blob(pieces, { type: "text/csv" }));
  element("a", { href: address, download: `${saved.name.replace(/\.\w+$/, "")}-sentiment.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
