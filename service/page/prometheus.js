// The text format of /metrics, as far as this page reads it.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/** A list of { name, labels, value } for every sample in `text`. */
export function parse(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const match = line.startsWith("#") ? null : LINE.exec(line);
    if (!match) continue;
    const labels = {};
    for (const [, key, value] of (match[2] ?? "").matchAll(LABEL)) labels[key] = value;
    samples.push({ name: match[1], labels, value: Number(match[3].replace("Inf", "Infinity")) });
  }
  return samples;
}

/** The samples called `name` whose labels are as `wanted`: for each label a value, or several. */
function those(samples, name, wanted) {
  const isWanted = ({ labels }) =>
    Object.entries(wanted).every(([key, values]) => [values].flat().includes(labels[key]));
  return samples.filter((sample) => sample.name === name && isWanted(sample));
}

/** Their sum. */
export function total(samples, name, wanted = {}) {
  return those(samples, name, wanted).reduce((sum, { value }) => sum + value, 0);
}

/** The values that a label of the samples called `name` has. */
export function valuesOf(samples, name, label) {
  return [...new Set(those(samples, name, {}).map(({ labels }) => labels[label]))];
}

/** The cumulative buckets of a histogram, added up over its labels: Map of upper bound to count. */
export function buckets(samples, name, wanted = {}) {
  const found = new Map();
  for (const { labels, value } of those(samples, `${name}_bucket`, wanted)) {
    const bound = Number(labels.le.replace("Inf", "Infinity"));
    found.set(bound, (found.get(bound) ?? 0) + value);
  }
  return found;
}

/** The quantile of what was added between two states of a histogram, or null where nothing was. */
export function quantile(before, after, share) {
  const bounds = [...after.keys()].sort((a, b) => a - b);
  const added = bounds.map((bound) => after.get(bound) - (before.get(bound) ?? 0));
  const all = added.at(-1);
  if (!(all > 0)) return null;
  const wanted = share * all;
  const at = added.findIndex((value) => value >= wanted);
  if (bounds[at] === Infinity) return bounds[at - 1] ?? null;
  const low = at ? bounds[at - 1] : 0;
  const below = at ? added[at - 1] : 0;
  return low + (bounds[at] - low) * ((wanted - below) / (added[at] - below || 1));
}
