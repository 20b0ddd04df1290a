// The second tab: lines or a file in, a table and a CSV out.

import { get } from "./api.js";
import { source, startInput } from "./batch_input.js";
import { Outcome } from "./batch_outcome.js";
import { run } from "./batch_run.js";
import { progressOf, showEnd } from "./batch_view.js";
import { byId, element, notify } from "./dom.js";
import { variantNames } from "./models.js";
import { pause } from "./patience.js";

let maxTexts = 64; // of one request, until the service has said
let running = null; // AbortController
let outcome = null;
let saving = false; // its CSV

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
}

async function showVariants() {
  const names = variantNames();
  const options = names.map((name) => element("option", { value: name }, name));
  if (names.length > 1) options.push(element("option", { value: "" }, names.length === 2 ? "both" : "all"));
  const select = byId("batch-variant");
  const chosen = select.options.length > 1 ? select.value : null;
  select.replaceChildren(...options);
  if (options.some(({ value }) => value === chosen)) select.value = chosen;
  const described = await get("docs.json").catch(() => null);
  maxTexts = described?.components?.schemas?.PredictRequest?.properties?.texts?.maxItems ?? maxTexts;
}

function start() {
  const given = source();
  notify(byId("batch-error"), given.rows.length ? null : "Paste some lines first, or choose a file.");
  if (!given.rows.length) return;
  outcome = new Outcome(given, byId("batch-variant").value || null);
  goOn();
}

/** Asks for the rows that have no result yet. */
async function goOn() {
  notify(byId("batch-error"), null);
  running = new AbortController();
  setRunning(true);
  const progress = progressOf(outcome);
  const began = performance.now() - outcome.ms;
  const spend = () => {
    outcome.ms = performance.now() - began;
  };
  progress();
  try {
    const options = { variant: outcome.variant, maxTexts, signal: running.signal, onWait: progress };
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
}

function setRunning(isRunning) {
  byId("batch-run").disabled = isRunning;
  byId("batch-stop").hidden = !isRunning;
  byId("batch-progress").hidden = false;
  byId("batch-go-on").hidden = isRunning || outcome.done === outcome.total;
  byId("download").hidden = isRunning || !outcome.done;
}

async function download() {
  if (saving) return;
  saving = true;
  const { name } = outcome;
  const pieces = [];
  for (const piece of outcome.csv()) {
    pieces.push(piece);
    await pause(0); // many rows take seconds
  }
  saving = false;
  const address = URL.createObjectURL(new Blob(pieces, { type: "text/csv" }));
  element("a", { href: address, download: `${name.replace(/\.\w+$/, "")}-sentiment.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
