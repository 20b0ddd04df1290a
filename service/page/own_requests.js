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

/** For charts: a point for each of those requests. */
export const ownLatency = () => requests.map(({ at, ms }) => ({ at, value: ms }));
export const ownAgreement = () => requests.map(({ at, texts, agreeing }) => ({ at, value: 100 * agreeing / texts }));
