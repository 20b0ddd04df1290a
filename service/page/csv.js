// CSV as RFC 4180 has it, and what people call CSV: other separators, one column, no heading.

const LINE_END = /\r\n|\n|\r/;

/** The lines of a text that are not blank. */
export function lines(text) {
  return text.replace(/^\uFEFF/, "").split(LINE_END).filter((line) => line.trim());
}

/** Rows of cells of a TSV, where a quotation mark is a character like any other. */
export const parseTabs = (text) => text.split(LINE_END).filter(Boolean).map((line) => line.split("\t"));

/**
 * { rows, separator } of a CSV: rows of cells, between separators as the first lines have them; where
 * the very first has none, a row is a whole line and the separator "". Or { openAt }: the line of a
 * quotation mark that nothing closes, and that would swallow rows.
 */
export function parse(text) {
  const separator = separatorOf(text);
  const cellEnd = new RegExp(`[${separator}\r\n]`, "g");
  const rows = [];
  let row = [];
  let at = 0;
  while (at < text.length) {
    const start = at;
    let quoted = "";
    if (text[at] === '"') {
      const close = closingQuote(text, at);
      const inside = text.slice(at + 1, close);
      const isWhole = [separator, "\r", "\n", undefined].includes(text[close + 1]);
      if (close < 0 || (!isWhole && LINE_END.test(inside))) return { openAt: text.slice(0, at).split(LINE_END).length };
      if (isWhole || separator) { // else a line that begins with a word in quotation marks
        quoted = inside.replaceAll('""', '"');
        at = close + 1;
      }
    }
    cellEnd.lastIndex = at;
    const end = cellEnd.exec(text)?.index ?? text.length;
    row.push(quoted + text.slice(at, end));
    at = end + (text.startsWith("\r\n", end) ? 2 : 1);
    if (separator && text[end] === separator) continue;
    if (row.length > 1 || end > start) rows.push(row); // else it is an empty line
    row = [];
  }
  if (row.length) rows.push([...row, ""]); // it ends with a separator
  return { rows, separator };
}

/** How many rows have more cells than the first, and how many have fewer. */
export function uneven(rows) {
  const width = rows[0].length;
  return { longer: rows.filter((row) => row.length > width).length, shorter: rows.filter((row) => row.length < width).length };
}

/** Where the quotation mark at `open` is closed, or -1. */
function closingQuote(text, open) {
  let close = text.indexOf('"', open + 1);
  while (close >= 0 && text[close + 1] === '"') close = text.indexOf('"', close + 2);
  return close;
}

/** Tab, semicolon or comma: the one that cuts most of the first lines into as many cells as the very
 * first, which what stands in sentences does not; where none cuts that, "". */
function separatorOf(text) {
  // Without what stands in quotes, and what may be cut off.
  const start = text.slice(0, 10000).replace(/"(?:[^"]|"")*"/g, "q").replace(/"[^]*$/, "");
  const lines = start.split(/[\r\n]+/).filter((line) => line.trim());
  if (lines.length > 1 && text.length > 10000) lines.pop();
  const alike = (separator) => {
    const cells = lines.map((line) => line.split(separator).length);
    return cells[0] > 1 ? cells.filter((count) => count === cells[0]).length : 0;
  };
  const best = ["\t", ";", ","].reduce((best, other) => (alike(other) > alike(best) ? other : best));
  return alike(best) ? best : "";
}

/** Rows of cells as CSV, with the line ends that RFC 4180 asks for. */
export function format(rows, separator) {
  const needsQuotes = new RegExp(`["\r\n${separator}]`);
  const written = (value) => {
    const text = String(value ?? "");
    return needsQuotes.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((cells) => `${cells.map(written).join(separator)}\r\n`).join("");
}
