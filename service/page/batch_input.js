// What the second tab is given: lines, or a file and which of its columns holds the texts.

import { guess } from "./columns.js";
import { lines, uneven } from "./csv.js";
import { byId, counted, element, notify, tell } from "./dom.js";
import { read, Unreadable } from "./file_reading.js";

const LARGE_PASTE = 20_000; // characters
const SIGNS = { ",": "commas", ";": "semicolons", "\t": "tabs" };

let file = null; // its name, and what read() gave, of the file that was given
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

/** What is to be classified: its name, the cells of every row, the heading, where in a row the text is,
 * how to write it again, and what to say where there is no row. */
export function source() {
  if (file === null) {
    const rows = lines(byId("lines").value).map((line) => [line]);
    return { name: "texts", heading: ["text"], rows, column: 0, none: "Paste some lines first, or choose a file." };
  }
  const { name, separator, bom } = file;
  const column = Number(byId("column").value);
  const heading = titles().map((title, i, all) =>
    title || (i === column && !all.includes("text") ? "text" : `column ${i + 1}`));
  return { name, heading, rows: body(), column, separator, bom, none: `${name} has no rows below its heading.` };
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
  let table;
  try {
    table = await read(given);
  } catch (reason) {
    if (!(reason instanceof Unreadable)) throw reason;
    if (opening !== given) return; // another one was given since
    const kept = file && `${file.name} is still chosen.`;
    notify(error, `${given.name} ${reason.message}`, [reason.hint, kept].filter(Boolean).join(" "));
    return;
  }
  if (opening === given) show({ ...table, name: given.name });
}

function show(given) {
  file = given;
  byId("lines").hidden = given !== null;
  byId("file-facts").hidden = given === null;
  if (given === null) {
    byId("lines").focus();
    return;
  }
  const { column, hasHeader } = guess(given.rows, given.hasHeader);
  const notes = oddities(given);
  byId("file-name").textContent = given.name;
  notify(byId("file-notice"), notes);
  byId("has-header").checked = hasHeader;
  byId("has-header").parentElement.hidden = given.hasHeader !== undefined;
  showColumns();
  byId("column").value = String(column);
  const where = titles().length > 1 ? `; texts are in ${byId("column").selectedOptions[0].text}` : "";
  tell(byId("batch-says"), `${given.name}: ${byId("file-size").textContent}${where}. ${notes}`.trim());
}

/** What may be wrong with a table, or "". */
function oddities({ rows, separator }) {
  const { longer, shorter } = uneven(rows);
  const says = (number, what) => `${counted(number, "row")} ${number === 1 ? "has" : "have"} ${what} cells than the first`;
  return [
    longer ? `${says(longer, "more")}${separator ? `: quote texts that hold ${SIGNS[separator]}` : ""}.` : "",
    shorter ? `${says(shorter, "fewer")}.` : "",
  ].join(" ").trim();
}

function showColumns() {
  const chosen = byId("column").value;
  const options = titles().map((title, i) => element("option", { value: i }, title || `column ${i + 1}`));
  byId("column").replaceChildren(...options);
  if (chosen) byId("column").value = chosen;
  byId("file-size").textContent = counted(body().length, "row");
}

/** The rows that are no heading. */
const body = () => file.rows.slice(Number(byId("has-header").checked));

/** What the file calls each of its columns, or "". */
function titles() {
  const width = file.rows.reduce((most, row) => Math.max(most, row.length), 0);
  const first = byId("has-header").checked ? file.rows[0] : [];
  return Array.from({ length: width }, (_, i) => first[i] ?? "");
}
