// CSV as RFC 4180 has it, and what people call CSV: other separators, a byte order mark, no heading.

const NAMES = ["text", "texts", "sentence", "review", "content", "comment", "body", "message", "tweet"];

/** The lines of a text that are not blank. */
export function lines(text) {
  return text.replace(/^\uFEFF/, "").split(/\r\n|\n|\r/).filter((line) => line.trim());
}

/** Rows of cells of a TSV, where a quotation mark is a character like any other. */
export const parseTabs = (text) => lines(text).map((line) => line.split("\t"));

/** Rows of cells of a CSV, between separators as the first lines have them. */
export function parse(source) {
  const text = source.replace(/^\uFEFF/, "");
  const separator = separatorOf(text);
  const cellEnd = new RegExp(`[${separator}\r\n]`, "g");
  const rows = [];
  let row = [];
  let at = 0;
  while (at < text.length) {
    let quoted = "";
    if (text[at] === '"') {
      let close = text.indexOf('"', at + 1);
      while (close >= 0 && text[close + 1] === '"') close = text.indexOf('"', close + 2);
      if (close < 0) close = text.length;
      quoted = text.slice(at + 1, close).replaceAll('""', '"');
      at = close + 1;
    }
    cellEnd.lastIndex = at;
    const end = cellEnd.exec(text)?.index ?? text.length;
    row.push(quoted + text.slice(at, end));
    at = end + (text.startsWith("\r\n", end) ? 2 : 1);
    if (text[end] === separator) continue;
    rows.push(row);
    row = [];
  }
  if (row.length) rows.push([...row, ""]); // it ends with a separator
  return rows.filter((cells) => cells.some((value) => value.trim()));
}

/** Tab, semicolon or comma: the one that cuts most of the first lines into as many cells as the very
 * first, which what stands in sentences does not; where none cuts that, a comma. */
function separatorOf(text) {
  // Without what stands in quotes, and what may be cut off.
  const start = text.slice(0, 10000).replace(/"(?:[^"]|"")*"/g, "").replace(/"[^]*$/, "");
  const lines = start.split(/[\r\n]+/).filter((line) => line.trim());
  if (lines.length > 1 && text.length > 10000) lines.pop();
  const alike = (separator) => {
    const cells = lines.map((line) => line.split(separator).length);
    return cells[0] > 1 ? cells.filter((count) => count === cells[0]).length : 0;
  };
  const best = ["\t", ";", ","].reduce((best, other) => (alike(other) > alike(best) ? other : best));
  return alike(best) ? best : ",";
}

/** Which column holds the texts, and whether the first row names the columns. */
export function guess(rows) {
  const first = rows[0]?.map((cell) => cell.trim().toLowerCase()) ?? [];
  const named = first.findIndex((cell) => NAMES.includes(cell));
  if (named >= 0) return { column: named, hasHeader: true };
  const lengths = first.map((_, column) =>
    rows.slice(0, 100).reduce((sum, cells) => sum + (cells[column]?.length ?? 0), 0));
  return { column: lengths.indexOf(Math.max(...lengths)), hasHeader: false };
}

/** Rows of cells as CSV, with the line ends that RFC 4180 asks for. */
export function format(rows) {
  return rows.map((cells) => `${cells.map(quoted).join(",")}\r\n`).join("");
}

function quoted(value) {
  const text = String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
