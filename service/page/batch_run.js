// Sends any number of texts to the service, in requests that it takes, and waits where it is busy.

import { ApiError, pause, post } from "./api.js";
import { record } from "./own_requests.js";

const TEXTS = 64; // of one request, so that progress is seen
const BYTES = 200_000;
const PATIENCE = 20; // times in a row that one request is sent again because the service is busy
const encoder = new TextEncoder();

/**
 * Yields results in the order of `texts`: { index, predictions: {variant: prediction}, agree } or
 * { index, error }. `variant` is a name, or null for all. `onWait(seconds)` is told of every pause.
 * Throws an ApiError where going on makes no sense, and the signal's reason where it aborts.
 */
export async function* run(texts, { variant, maxTexts, signal, onWait }) {
  const pending = [...texts.entries()].map(([index, text]) => ({ index, text }));
  let limit = Math.min(maxTexts, TEXTS);
  while (pending.length) {
    const chunk = next(pending, limit);
    try {
      const answers = await patiently(chunk, variant, signal, onWait);
      for (const [place, { index }] of chunk.entries()) yield { index, ...answers[place] };
    } catch (error) {
      const bad = /^texts\[(\d+)\]/.exec(error.field ?? "")?.[1];
      const tooMany = error.status === 413 || error.code === "too_many_texts";
      if (tooMany && chunk.length > 1) {
        limit = Math.ceil(chunk.length / 2);
        pending.unshift(...chunk);
      } else if (bad !== undefined && Number(bad) < chunk.length) {
        const [{ index }] = chunk.splice(Number(bad), 1);
        pending.unshift(...chunk);
        yield { index, error: error.message };
      } else if (error.status === 413) {
        yield { index: chunk[0].index, error: error.message };
      } else {
        throw error;
      }
    }
  }
}

/** Takes the next texts off `pending`: at most `limit`, and BYTES unless one alone is longer. */
function next(pending, limit) {
  let bytes = 0;
  let size = 0;
  while (size < limit && size < pending.length) {
    bytes += encoder.encode(pending[size].text).length;
    if (size && bytes > BYTES) break;
    size += 1;
  }
  return pending.splice(0, size);
}

/** Sends a chunk, again and again where the service is busy; an answer for each text, in order. */
async function patiently(chunk, variant, signal, onWait) {
  const texts = chunk.map(({ text }) => text);
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await answered(texts, variant, signal);
    } catch (error) {
      if (!(error instanceof ApiError) || !error.isBusy || attempt >= PATIENCE) throw error;
      const seconds = error.retryAfter || 1;
      onWait(seconds);
      await pause(seconds, signal);
      onWait(0);
    }
  }
}

async function answered(texts, variant, signal) {
  if (variant !== null) {
    const answer = await post("predict", { texts, variant }, signal);
    return answer.predictions.map((prediction) => ({ predictions: { [answer.variant]: prediction } }));
  }
  const began = performance.now();
  const answer = await post("compare", { texts }, signal);
  record(answer, performance.now() - began);
  return answer.comparisons.map(({ agree, predictions }) => ({ agree, predictions }));
}
