// What a file of texts holds, as a table: CSV, TSV, JSON, JSON lines, or plain lines.

import { lines, parse, parseTabs } from "./csv.js";

const LARGEST = 50 * 1024 * 1024; // bytes of a file

/** Why a file is not read: what follows its name in a sentence, and what a person can do. */
export class Unreadable extends Error {
  constructor(message, hint = "") {
    super(message);
    this.hint = hint;
  }
}

/**
 * The table in `file`: { rows, hasHeader, separator, bom }. `hasHeader` where it is known, `separator` of
 * a CSV, `bom` whether it begins with a byte order mark. Throws an Unreadable.
 */
export async function read(file) {
  if (file.size > LARGEST) {
    throw new Unreadable("has more than 50 MB.", "For one text a line, `crisp predict --file` takes any size. Cut a table into parts.");
  }
  const buffer = await file.arrayBuffer().catch(() => {
    throw new Unreadable("cannot be read.", "Was it moved or changed? Choose it again.");
  });
  const { text, bom } = decoded(new Uint8Array(buffer));
  const table = tableOf(text, file);
  if (!table.rows.length) throw new Unreadable("is empty.");
  return { ...table, bom };
}

function decoded(bytes) {
  const begins = (...start) => start.every((byte, i) => bytes[i] === byte);
  if (begins(0x50, 0x4b, 3, 4)) throw new Unreadable("is a spreadsheet or an archive, not text.", "Save it as CSV UTF-8.");
  const encoding = begins(0xff, 0xfe) ? "utf-16le" : begins(0xfe, 0xff) ? "utf-16be" : "utf-8";
  let text = "\0";
  try {
    text = new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch {
    // It is told below.
  }
  if (text.includes("\0")) throw new Unreadable("is not UTF-8 text.", "Save it as UTF-8 and try again.");
  return { text, bom: encoding !== "utf-8" || begins(0xef, 0xbb, 0xbf) };
}

function tableOf(text, { name, type }) {
  if (/\.tsv$/i.test(name)) return { rows: parseTabs(text) };
  if (/\.csv$/i.test(name) || type === "text/csv") return csv(text);
  if (/\.json$/i.test(name)) return json(text);
  const all = lines(text);
  const isJson = /\.(jsonl|ndjson)$/i.test(name);
  const table = isJson || all.every((line) => line.startsWith("{")) ? listed(all.map(parsed)) : null;
  if (table) return table;
  if (isJson) throw new Unreadable("is not JSON lines.", 'It takes one object a line, such as {"text": "Good"}.');
  const cuts = (line) => line.split("\t").length;
  const isTable = all.length > 1 && cuts(all[0]) > 1 && all.every((line) => cuts(line) === cuts(all[0]));
  return { rows: all.map((line) => (isTable ? line.split("\t") : [line])) };
}

function csv(text) {
  const { openAt, ...table } = parse(text);
  if (!openAt) return table;
  throw new Unreadable(`has a quotation mark in line ${openAt} that is not closed.`, "Close it, or double it where it is part of a text.");
}

/** A list, or JSON lines by another name. */
function json(text) {
  const whole = parsed(text);
  const each = lines(text);
  const table = Array.isArray(whole) ? listed(whole) : each.length > 1 && listed(each.map(parsed));
  if (table) return table;
  throw new Unreadable("holds no list of texts.", 'It takes ["Good", "Bad"] or [{"text": "Good"}, {"text": "Bad"}].');
}

/** The JSON value in `text`, or undefined. */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The table of values that are all texts, or all objects, whose keys become columns; else null. */
function listed(values) {
  if (values.every((value) => typeof value === "string")) return { rows: values.map((value) => [value]), hasHeader: false };
  if (!values.every((value) => value && typeof value === "object" && !Array.isArray(value))) return null;
  const keys = [...new Set(values.flatMap(Object.keys))];
  if (!keys.length) return { rows: [] };
  const cell = (value) => (typeof value === "string" ? value : value == null ? "" : JSON.stringify(value));
  const rows = values.map((value) => keys.map((key) => (Object.hasOwn(value, key) ? cell(value[key]) : "")));
  return { rows: [keys, ...rows], hasHeader: true };
}
