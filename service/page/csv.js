// CSV as RFC 4180 has it, and what people call CSV: other separators, a byte order mark, no heading.

const NAMES = ["text", "texts", "sentence", "review", "content", "comment", "body", "message", "tweet"];

/** Rows of cells, between separators as given, or as the first lines have them. */
export function parse(source, given) {
  const text = source.replace(/^\uFEFF/, "");
  const separator = given ?? separatorOf(text);
  const rows = [];
  let row = [];
  let cell = "";
  let quoted = false;
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (quoted) {
      if (character !== '"') cell += character;
      else if (text[at + 1] === '"') cell += text[(at += 1)];
      else quoted = false;
    } else if (character === '"' && cell === "") {
      quoted = true;
    } else if (character === separator) {
      row.push(cell);
      cell = "";
    } else if (character === "\n" || character === "\r") {
      if (character === "\r" && text[at + 1] === "\n") at += 1;
      rows.push([...row, cell]);
      row = [];
      cell = "";
    } else {
      cell += character;
    }
  }
  if (cell !== "" || row.length) rows.push([...row, cell]);
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
