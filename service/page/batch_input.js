// What the second tab is given: lines, or a file and which of its columns holds the texts.

import { guess, lines, parse, parseTabs } from "./csv.js";
import { byId, counted, element, notify } from "./dom.js";

const LARGE_PASTE = 20_000; // characters
const LARGEST = 50 * 1024 * 1024; // bytes of a file

let file = null; // { name, rows } of the file that was given
let opening = null; // the file that was given last, while it is read

export function startInput() {
  byId("file").addEventListener("change", ({ target }) => {
    if (target.files.length) open(target.files[0]);
    target.value = "";
  });
  byId("file-remove").addEventListener("click", () => show(null));
  byId("has-header").addEventListener("change", showColumns);
  byId("lines").addEventListener("paste", pasteLarge);
  startDrop(byId("drop"));
}

/** What is to be classified: its name, the cells of every row, the heading, and where in a row the text is. */
export function source() {
  if (file === null) {
    return { name: "texts", heading: ["text"], rows: lines(byId("lines").value).map((line) => [line]), column: 0 };
  }
  const { name, rows } = file;
  const hasHeader = byId("has-header").checked;
  const heading = titles().map((title, i) => title || (i ? `column ${i + 1}` : "text"));
  return { name, heading, rows: hasHeader ? rows.slice(1) : rows, column: Number(byId("column").value) };
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
  opening = given;
  const error = byId("batch-error");
  notify(error, null);
  if (given.size > LARGEST) {
    notify(error, `${given.name} has more than 50 MB.`, "Use `crisp predict --file` for files of any size.");
    return;
  }
  const bytes = await given.arrayBuffer().catch(() => null);
  if (opening !== given) return; // another one was given since
  if (bytes === null) {
    notify(error, `${given.name} cannot be read.`, "Was it moved or changed? Choose it again.");
    return;
  }
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    notify(error, `${given.name} is not UTF-8 text.`, "Save it as UTF-8 and try again.");
    return;
  }
  const rows = rowsOf(text, given);
  if (rows.length) show({ name: given.name, rows });
  else notify(error, `${given.name} is empty.`);
}

function rowsOf(text, { name, type }) {
  if (/\.tsv$/i.test(name)) return parseTabs(text);
  if (/\.csv$/i.test(name) || type === "text/csv") return parse(text);
  return lines(text).map((line) => [line]);
}

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
  const chosen = byId("column").value;
  const options = titles().map((title, i) => element("option", { value: i }, title || `column ${i + 1}`));
  byId("column").replaceChildren(...options);
  if (chosen) byId("column").value = chosen;
  byId("file-size").textContent = counted(file.rows.length - Number(byId("has-header").checked), "row");
}

/** What the file calls each of its columns, or "". */
function titles() {
  const width = file.rows.reduce((most, row) => Math.max(most, row.length), 0);
  const first = byId("has-header").checked ? file.rows[0] : [];
  return Array.from({ length: width }, (_, i) => first[i] ?? "");
}
