// What a batch has found so far: counted as it comes in, so that to look at it costs the same for ten
// rows and for a million.

import { format } from "./csv.js";
import { ordered } from "./models.js";

const PIECE = 20_000; // rows
const FIELDS = ["label", "score", "tokens", "truncated"]; // of a prediction, in the CSV

export class Outcome {
  constructor({ name, heading, rows, column, separator, bom }, variant) {
    Object.assign(this, { name, heading, rows, column, bom, variant });
    this.separator = separator || ",";
    this.results = new Array(rows.length); // { predictions, agree } or { error }
    this.variants = []; // that answered, the default first
    this.labels = new Map(); // how often the first of them gave each
    this.done = 0; // rows with a result
    this.answered = 0; // those with predictions
    this.compared = 0; // those with predictions of several variants
    this.agreeing = 0;
    this.ms = 0; // spent on it
    for (const index of rows.keys()) {
      if (!this.textOf(index).trim()) this.put(index, { error: "no text" });
    }
  }

  textOf(index) {
    return this.rows[index][this.column] ?? "";
  }

  /** Keeps the result of a row that has none yet. */
  put(index, result) {
    this.results[index] = result;
    this.done += 1;
    const { predictions, agree } = result;
    if (!predictions) return;
    this.answered += 1;
    // Other models may have come in the meantime.
    const others = Object.keys(predictions).filter((name) => !this.variants.includes(name));
    this.variants.push(...ordered(others));
    const label = predictions[this.variants[0]]?.label;
    if (label !== undefined) this.labels.set(label, (this.labels.get(label) ?? 0) + 1);
    if (agree === undefined) return;
    this.compared += 1;
    this.agreeing += Number(agree);
  }

  get total() {
    return this.rows.length;
  }

  /** The rows without a result: { index, text } of each, in order. */
  pending() {
    const left = [];
    for (const index of this.rows.keys()) {
      if (!this.results[index]) left.push({ index, text: this.textOf(index) });
    }
    return left;
  }

  /** The rows as they came, with what was found for each: pieces of a CSV. */
  *csv() {
    const several = this.variants.length > 1;
    yield (this.bom ? "\uFEFF" : "") + format([[...this.heading, ...this.titles()]], this.separator);
    for (let start = 0; start < this.total; start += PIECE) {
      yield format(this.rows.slice(start, start + PIECE).map((row, place) => {
        const { predictions, agree, error } = this.results[start + place] ?? { error: "not sent" };
        const cells = this.heading.map((_, column) => row[column] ?? "");
        for (const name of this.variants) cells.push(...FIELDS.map((field) => predictions?.[name]?.[field] ?? ""));
        return [...cells, ...(several ? [agree ?? ""] : []), error ?? ""];
      }), this.separator);
    }
  }

  /** What the columns of the results are called: not as a column of the rows, which may be results too. */
  titles() {
    const several = this.variants.length > 1;
    const isTaken = (title) => this.heading.includes(title);
    const named = several || FIELDS.some(isTaken);
    const titles = this.variants.flatMap((name) => FIELDS.map((field) => (named ? `${name}_${field}` : field)));
    if (several) titles.push("agree");
    return [...titles, "error"].map((title) => {
      let free = title;
      while (isTaken(free)) free = `crisp_${free}`;
      return free;
    });
  }
}
