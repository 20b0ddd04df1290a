// The second tab: lines or a file in, a table and a CSV out.

import { get } from "./api.js";
import { run } from "./batch_run.js";
import { format, guess, parse } from "./csv.js";
import { byId, count, counted, element, notify, percent, rate, tone } from "./dom.js";

const SHOWN = 200; // rows of the table; the CSV has all
const DRAW_MS = 150; // between two pictures of the progress
const LARGE_PASTE = 20_000; // characters
const LARGEST = 50 * 1024 * 1024; // bytes of a file

let file = null; // { name, rows } of the file that was given
let maxTexts = 64; // of one request, until the service has said
let running = null; // AbortController
let outcome = null; // { heading, rows, results, variants } for the CSV

export function startBatch() {
  byId("batch-form").addEventListener("submit", (event) => {
    event.preventDefault();
    start();
  });
  byId("batch-stop").addEventListener("click", () => running?.abort());
  byId("download").addEventListener("click", download);
  byId("file").addEventListener("change", ({ target }) => {
    if (target.files.length) open(target.files[0]);
    target.value = "";
  });
  byId("file-remove").addEventListener("click", () => show(null));
  byId("has-header").addEventListener("change", showColumns);
  byId("lines").addEventListener("paste", pasteLarge);
  startDrop(byId("drop"));
  document.addEventListener("crisp:models", ({ detail }) => showVariants(detail));
}

async function showVariants(models) {
  const names = Object.keys(models.variants).sort((a, b) => (b === models.default) - (a === models.default));
  const options = names.map((name) => element("option", { value: name }, name));
  if (names.length > 1) options.push(element("option", { value: "" }, names.length === 2 ? "both" : "all"));
  byId("batch-variant").replaceChildren(...options);
  const described = await get("docs.json").catch(() => null);
  maxTexts = described?.components?.schemas?.PredictRequest?.properties?.texts?.maxItems ?? maxTexts;
}

/** Chromium takes seconds for thousands of lines, unless they are put in by a script. */
function pasteLarge(event) {
  const text = event.clipboardData.getData("text");
  if (text.length < LARGE_PASTE) return;
  event.preventDefault();
  event.target.setRangeText(text, event.target.selectionStart, event.target.selectionEnd, "end");
}

function startDrop(box) {
  const over = (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    box.classList.add("over");
  };
  box.addEventListener("dragenter", over);
  box.addEventListener("dragover", over);
  box.addEventListener("dragleave", () => box.classList.remove("over"));
  box.addEventListener("drop", (event) => {
    box.classList.remove("over");
    const [dropped] = event.dataTransfer.files;
    if (!dropped) return;
    event.preventDefault();
    open(dropped);
  });
}

async function open(given) {
  notify(byId("batch-error"), null);
  if (given.size > LARGEST) {
    notify(byId("batch-error"), `${given.name} has more than 50 MB.`, "Use `crisp predict --file` for files of any size.");
    return;
  }
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(await given.arrayBuffer());
  } catch {
    notify(byId("batch-error"), `${given.name} is not UTF-8 text.`, "Save it as UTF-8 and try again.");
    return;
  }
  const isTable = /\.(csv|tsv)$/i.test(given.name) || given.type === "text/csv";
  const separator = /\.tsv$/i.test(given.name) ? "\t" : undefined;
  const rows = isTable ? parse(text, separator) : lines(text).map((line) => [line]);
  if (rows.length) show({ name: given.name, rows });
  else notify(byId("batch-error"), `${given.name} is empty.`);
}

const widthOf = (rows) => rows.reduce((width, row) => Math.max(width, row.length), 0);

const lines = (text) => text.replace(/^\uFEFF/, "").split(/\r\n|\n|\r/).filter((line) => line.trim());

function show(given) {
  file = given;
  byId("lines").hidden = given !== null;
  byId("file-facts").hidden = given === null;
  if (given === null) {
    byId("lines").focus();
    return;
  }
  const { column, hasHeader } = guess(given.rows);
  byId("file-name").textContent = given.name;
  byId("has-header").checked = hasHeader;
  showColumns();
  byId("column").value = String(column);
}

function showColumns() {
  const hasHeader = byId("has-header").checked;
  const chosen = byId("column").value;
  const names = Array.from({ length: widthOf(file.rows) }, (_, i) => (hasHeader && file.rows[0][i]) || `column ${i + 1}`);
  byId("column").replaceChildren(...names.map((name, i) => element("option", { value: i }, name)));
  if (chosen) byId("column").value = chosen;
  byId("file-size").textContent = counted(file.rows.length - Number(hasHeader), "row");
}

/** What is to be classified: the cells of every row, the heading, and where in a row the text is. */
function source() {
  if (file === null) return { heading: ["text"], rows: lines(byId("lines").value).map((line) => [line]), column: 0 };
  const hasHeader = byId("has-header").checked;
  const names = Array.from({ length: widthOf(file.rows) }, (_, i) => (hasHeader && file.rows[0][i]) || (i ? `column ${i + 1}` : "text"));
  return { heading: names, rows: hasHeader ? file.rows.slice(1) : file.rows, column: Number(byId("column").value) };
}

async function start() {
  const { heading, rows, column } = source();
  notify(byId("batch-error"), rows.length ? null : "Paste some lines first, or choose a file.");
  if (!rows.length) return;
  const variant = byId("batch-variant").value || null;
  const results = new Array(rows.length);
  outcome = { heading, rows, results, column };
  running = new AbortController();
  setRunning(true);
  const began = performance.now();
  const waiting = { seconds: 0 };
  let done = 0;
  const progress = () => showProgress(done, rows.length, performance.now() - began, waiting.seconds);
  const drawn = { at: -Infinity, rows: 0 };
  const progressNowAndThen = () => {
    if (performance.now() - drawn.at < DRAW_MS) return;
    drawn.at = performance.now();
    progress();
    if (drawn.rows < SHOWN) showTable();
    drawn.rows = done;
  };
  try {
    const texts = [];
    const places = [];
    for (const [index, row] of rows.entries()) {
      if (row[column]?.trim()) texts.push(row[column]) && places.push(index);
      else results[index] = { error: "no text" };
    }
    done = rows.length - texts.length;
    progress();
    const options = {
      variant, maxTexts, signal: running.signal,
      onWait: (seconds) => {
        waiting.seconds = seconds;
        progress();
      },
    };
    for await (const { index, ...result } of run(texts, options)) {
      results[places[index]] = result;
      done += 1;
      progressNowAndThen();
    }
    progress();
  } catch (error) {
    if (error.name === "AbortError") byId("batch-status").textContent = `Stopped after ${count(done)} of ${counted(rows.length, "text")}.`;
    else notify(byId("batch-error"), error.message, error.hint);
  } finally {
    setRunning(false);
    showTable();
  }
}

function setRunning(isRunning) {
  byId("batch-run").disabled = isRunning;
  byId("batch-stop").hidden = !isRunning;
  byId("batch-progress").hidden = false;
  byId("download").hidden = isRunning || !outcome.results.some(Boolean);
}

function showProgress(done, total, ms, waiting) {
  byId("batch-bar").value = total ? done / total : 0;
  const speed = ms > 0 ? done / (ms / 1000) : 0;
  const finished = done === total;
  const left = speed > 0 ? Math.ceil((total - done) / speed) : 0;
  let says = `${count(done)} of ${counted(total, "text")}`;
  if (finished) says = `${counted(total, "text")} in ${(ms / 1000).toFixed(1)} s`;
  else if (waiting) says += `. The service is busy: trying again in ${waiting} s.`;
  else if (done) says += `, about ${counted(left, "second")} left`;
  byId("batch-status").textContent = says;
  const found = outcome.results.filter(Boolean);
  const answered = found.filter((result) => result.predictions);
  const tiles = [["texts a second", rate(speed)]];
  for (const [label, number] of tally(answered)) tiles.push([label, count(number)]);
  const compared = answered.filter((result) => result.agree !== undefined);
  if (compared.length) tiles.push(["same label", percent(compared.filter((result) => result.agree).length / compared.length)]);
  const failed = found.length - answered.length;
  if (failed) tiles.push(["not classified", count(failed)]);
  byId("batch-tiles").replaceChildren(...tiles.map(([term, value]) =>
    element("div", {}, element("dt", {}, term), element("dd", {}, value))));
}

/** How often each label was given, by the first variant. */
function tally(answered) {
  const often = new Map();
  for (const { predictions } of answered) {
    const { label } = predictions[namesOf(predictions)[0]];
    often.set(label, (often.get(label) ?? 0) + 1);
  }
  return [...often].sort();
}

/** Variants in the order of the page: that of the choice, the default first. */
function namesOf(predictions) {
  const order = [...byId("batch-variant").options].map((option) => option.value);
  return Object.keys(predictions).sort((a, b) => order.indexOf(a) - order.indexOf(b));
}

function variantsOf(results) {
  const first = results.find((result) => result?.predictions);
  return first ? namesOf(first.predictions) : [];
}

function showTable() {
  const { rows, results, column } = outcome;
  const variants = variantsOf(results);
  const titles = ["#", ...variants, "Text"];
  const head = titles.map((title) => element("th", { scope: "col", class: title === "#" ? "number" : null }, title));
  const body = [];
  for (const [index, result] of results.entries()) {
    if (!result) continue;
    if (body.length >= SHOWN) break;
    body.push(tableRow(index, rows[index][column] ?? "", result, variants));
  }
  byId("batch-table").replaceChildren(...(body.length
    ? [element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body))] : []));
  const hidden = results.filter(Boolean).length - body.length;
  byId("batch-more").hidden = hidden <= 0;
  byId("batch-more").textContent = `${counted(hidden, "more row")} in the CSV.`;
}

function tableRow(index, text, result, variants) {
  const cells = result.predictions
    ? variants.map((name) => {
      const { label, score } = result.predictions[name];
      return element("td", { class: tone(label) }, label, element("span", { class: "note" }, score.toFixed(3)));
    })
    : [element("td", { colspan: Math.max(1, variants.length), class: "note" }, result.error)];
  return element(
    "tr", { class: result.agree === false ? "differs" : null },
    element("td", { class: "number" }, count(index + 1)),
    ...cells,
    element("td", { class: "text" }, text.length > 240 ? `${text.slice(0, 240)}…` : text),
  );
}

function download() {
  const { heading, rows, results } = outcome;
  const variants = variantsOf(results);
  const several = variants.length > 1;
  const titles = variants.flatMap((name) =>
    ["label", "score", "tokens", "truncated"].map((field) => (several ? `${name}_${field}` : field)));
  const table = [[...heading, ...titles, ...(several ? ["agree"] : []), "error"]];
  for (const [index, row] of rows.entries()) {
    const result = results[index];
    const found = variants.flatMap((name) => {
      const prediction = result?.predictions?.[name];
      return prediction ? [prediction.label, prediction.score, prediction.tokens, prediction.truncated] : ["", "", "", ""];
    });
    const cells = heading.map((_, column) => row[column] ?? "");
    table.push([...cells, ...found, ...(several ? [result?.agree ?? ""] : []), result ? result.error ?? "" : "not sent"]);
  }
  const address = URL.createObjectURL(new Blob([format(table)], { type: "text/csv" }));
  const base = (file?.name ?? "texts").replace(/\.\w+$/, "");
  element("a", { href: address, download: `${base}-sentiment.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
