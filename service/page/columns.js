// Which column of a table holds the texts, and whether its first row names the columns.

const NAMES = ["text", "sentence", "review", "content", "comment", "body", "message", "tweet"];
const LOOKED_AT = 100; // rows

/** `hasHeader` is given where it is known. */
export function guess(rows, hasHeader) {
  const [first, ...others] = rows.slice(0, LOOKED_AT + 1);
  const titles = first.map(titleWords);
  const isNamed = titles.map((words) => words.some((word) => NAMES.includes(word)));
  const isName = titles.map((words, i) => words.length === 1 && isNamed[i]);
  const isHeading = hasHeader ?? (isName.includes(true) || namesTexts(first, titles, isNamed) || standsOverNumbers(first, others));
  const cells = (column) => (isHeading ? others : rows.slice(0, LOOKED_AT)).map((row) => (row[column] ?? "").slice(0, 2000));
  // Links and numbers of orders are long, but one word. Where every cell is one, the longest.
  const weights = first.map((_, column) => cells(column).reduce(
    (sum, cell) => sum + weight(wordsIn(cell), isHeading && isNamed[column]) + cell.length / 1e6, 0));
  const best = (columns) => columns.reduce((best, other) => (weights[other] > weights[best] ? other : best));
  const all = [...first.keys()];
  const exact = all.filter((column) => isHeading && isName[column]);
  return { column: best(exact.length ? exact : all), hasHeader: isHeading };
}

/** A "review_id" is no text for its name. */
const weight = (words, isNamed) => (isNamed && words > 1 ? 4 * words : words);

/** "ReviewTexts" and "review_text": review, text. */
function titleWords(title) {
  const words = title.replace(/(\p{Ll})(\p{Lu})/gu, "$1 $2").toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  return words.map((word) => word.replace(/s$/, ""));
}

/** Whether a row of few words has a column called something with "text", not one that says "Great text!". */
function namesTexts(first, titles, isNamed) {
  return isNamed.includes(true) && titles.every((words) => words.length <= 4)
    && !first.some((cell) => isNumber(cell) || /[.!?]/.test(cell))
    && (first.length > 1 || !/\s/.test(first[0].trim()));
}

/** Whether a word stands first in a column of numbers or dates. */
function standsOverNumbers(first, others) {
  return first.length > 1 && first.some((cell, column) => {
    const below = others.map((row) => row[column] ?? "").filter((value) => value.trim());
    return /\p{L}/u.test(cell) && below.length > 0 && below.every(isNumber);
  });
}

const isNumber = (cell) => /\p{N}/u.test(cell) && !/\p{L}/u.test(cell);

/** As people count them; in scripts that put no spaces between words, signs. */
function wordsIn(cell) {
  const apart = cell.match(/[\p{Ideographic}\p{sc=Hira}\p{sc=Kana}\p{sc=Thai}]/gu) ?? [];
  return cell.split(/\s+/).filter((word) => /\p{L}/u.test(word)).length + apart.length;
}
