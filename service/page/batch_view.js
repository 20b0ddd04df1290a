// How a batch is shown: its status and figures, the first rows as a table.

import { byId, count, counted, element, notify, part, percent, rate, showTiles, tone } from "./dom.js";

const SHOWN = 200; // rows of the table; the CSV has all
const DRAW_MS = 150; // between two pictures of the progress
const STEPS = 10; // of the progress that are said to a screen reader

/** Shows how `outcome` grows: the function that is given back draws it, seldom enough. `waiting` says
 * what the batch waits for, or "". */
export function progressOf(outcome) {
  let drawnAt = -Infinity;
  let rows = 0; // that the table was made of
  let said = -1;
  return (waiting = "") => {
    if (outcome.done === outcome.total) return; // showEnd says it
    if (!waiting && performance.now() - drawnAt < DRAW_MS) return;
    const says = `${status(outcome)}${waiting ? `. ${waiting}` : timeLeft(outcome)}`;
    byId("batch-status").textContent = says;
    showFigures(outcome);
    if (rows < SHOWN) showTable(outcome);
    rows = outcome.done;
    // A screen reader hears of each step once, and of the first wait in it.
    const step = 2 * Math.floor(STEPS * outcome.done / outcome.total) + (waiting ? 1 : 0);
    if (step > said) notify(byId("batch-says"), says);
    said = Math.max(said, step);
    drawnAt = performance.now(); // not before: drawing takes time too
  };
}

/** Shows what has come of `outcome` in the end, or until it was stopped. */
export function showEnd(outcome) {
  const says = outcome.done === outcome.total
    ? `${counted(outcome.total, "text")} in ${(outcome.ms / 1000).toFixed(1)} s`
    : `Stopped after ${status(outcome)}.`;
  byId("batch-status").textContent = says;
  notify(byId("batch-says"), says);
  showFigures(outcome);
  showTable(outcome);
}

const status = ({ done, total }) => `${count(done)} of ${counted(total, "text")}`;

const speed = ({ answered, ms }) => (ms > 0 ? answered / (ms / 1000) : 0);

function timeLeft(outcome) {
  if (!outcome.answered) return "";
  return `, about ${counted(Math.ceil((outcome.total - outcome.done) / speed(outcome)), "second")} left`;
}

function showFigures(outcome) {
  const { done, total, answered, compared, agreeing, labels } = outcome;
  byId("batch-bar").value = done / total;
  const tiles = [["texts a second", rate(speed(outcome))]];
  const inOrder = [...labels].sort(([one], [other]) => one.localeCompare(other, "en", { numeric: true }));
  for (const [label, number] of inOrder) tiles.push([label, count(number)]);
  if (compared) tiles.push(["same label", percent(agreeing / compared)]);
  if (done > answered) tiles.push(["not classified", count(done - answered)]);
  showTiles(byId("batch-tiles"), tiles);
}

function showTable(outcome) {
  const titles = ["#", ...outcome.variants, "Text"];
  const head = titles.map((title) => element("th", { scope: "col", class: title === "#" ? "number" : null }, title));
  const body = [];
  for (const [index, result] of outcome.results.entries()) {
    if (!result) continue;
    if (body.length >= SHOWN) break;
    body.push(tableRow(index, outcome.textOf(index), result, outcome.variants));
  }
  byId("batch-table").replaceChildren(...(body.length
    ? [element("table", {}, element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body))] : []));
  const hidden = outcome.done - body.length;
  byId("batch-more").hidden = hidden <= 0;
  byId("batch-more").textContent = `${counted(hidden, "more row")} in the CSV.`;
}

function tableRow(index, text, { predictions, agree, error }, variants) {
  const cells = predictions
    ? variants.map((name) => verdict(predictions[name]))
    : [element("td", { colspan: Math.max(1, variants.length), class: "note" }, error)];
  return element(
    "tr", { class: agree === false ? "differs" : null },
    element("td", { class: "number" }, count(index + 1)),
    ...cells,
    element("td", { class: "text" }, text.length > 240 ? `${text.slice(0, 240)}…` : text),
  );
}

function verdict(prediction) {
  if (!prediction) return element("td"); // that model was not there then
  const { label, score } = prediction;
  return element("td", { class: tone(label) }, label, element("span", { class: "note" }, part(score, 1, 3)));
}
