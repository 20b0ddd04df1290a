// What this page itself has asked: how often the variants agreed, and how long answers took.

const KEPT_MS = 5 * 60 * 1000;
const requests = [];

/** Remembers an answer of /compare that took `ms` from this page and back. */
export function record({ comparisons }, ms) {
  const now = Date.now();
  const agreeing = comparisons.filter((comparison) => comparison.agree).length;
  requests.push({ at: now, texts: comparisons.length, agreeing, ms });
  while (requests.length && requests[0].at < now - KEPT_MS) requests.shift();
}

/** Texts that were compared since `at`, and on how many of them the variants agreed. */
export function comparedSince(at) {
  const recent = requests.filter((request) => request.at >= at);
  return {
    texts: recent.reduce((sum, request) => sum + request.texts, 0),
    agreeing: recent.reduce((sum, request) => sum + request.agreeing, 0),
  };
}
