// Sends any number of texts to the service, in requests that it takes, and waits where it is busy or away.

import { post } from "./api.js";
import { record } from "./own_requests.js";
import { patiently } from "./patience.js";

const TEXTS = 64; // of one request, so that progress is seen
const BYTES = 200_000;
const TRIES = 10; // in a row, of a request that nothing answers: two and a half minutes
const FAILURES = 3; // in a row, of texts that were sent alone, before it is the service that fails
const encoder = new TextEncoder();

/**
 * Yields, for a request after the other, what is known now of `texts`, a list of { index, text }: lists
 * of { index, predictions: {variant: prediction}, agree } and { index, error }. `variant` is a name, or
 * null for all. `onWait` is told why nothing happens, and "" when it goes on. Throws an ApiError where
 * going on makes no sense, and the signal's reason where it aborts.
 */
export async function* run(texts, { variant, maxTexts, signal, onWait }) {
  const pending = [...texts].reverse(); // the next one last: cheap to take, and to give back
  let most = Math.min(maxTexts, TEXTS); // that a request may have
  let limit = most; // that it shall have now
  let failures = 0;
  const waits = {
    signal, tries: TRIES,
    onWait: (seconds, error) => onWait(seconds
      ? `The service ${error.isBusy ? "is busy" : "does not answer"}: trying again in ${seconds} s.` : ""),
  };
  while (pending.length) {
    const chunk = next(pending, limit);
    try {
      const answers = await patiently(() => answered(chunk, variant, signal), waits);
      failures = 0;
      limit = Math.min(most, 2 * limit);
      yield chunk.map(({ index }, place) => ({ index, ...answers[place] }));
    } catch (error) {
      const bad = /^texts\[(\d+)\]/.exec(error.field ?? "")?.[1];
      const tooMany = error.status === 413 || error.code === "too_many_texts";
      const failed = error.status === 500 || error.status === 504;
      if ((tooMany || failed) && chunk.length > 1) {
        limit = Math.ceil(chunk.length / 2);
        if (tooMany) most = limit;
        pending.push(...chunk.reverse());
      } else if (bad !== undefined && Number(bad) < chunk.length) {
        const [{ index }] = chunk.splice(Number(bad), 1);
        pending.push(...chunk.reverse());
        yield [{ index, error: error.message }];
      } else if (error.status === 413 || (failed && failures < FAILURES)) {
        if (failed) failures += 1;
        yield [{ index: chunk[0].index, error: error.message }];
      } else {
        throw error;
      }
    }
  }
}

/** Takes the next texts off `pending`: at most `limit`, and BYTES unless one alone is longer. */
function next(pending, limit) {
  const chunk = [];
  let bytes = 0;
  while (pending.length && chunk.length < limit) {
    bytes += encoder.encode(pending.at(-1).text).length;
    if (chunk.length && bytes > BYTES) break;
    chunk.push(pending.pop());
  }
  return chunk;
}

/** An answer for each text of `chunk`, in order. */
async function answered(chunk, variant, signal) {
  const texts = chunk.map(({ text }) => text);
  if (variant !== null) {
    const answer = await post("predict", { texts, variant }, signal);
    return answer.predictions.map((prediction) => ({ predictions: { [answer.variant]: prediction } }));
  }
  const began = performance.now();
  const answer = await post("compare", { texts }, signal);
  record(answer, performance.now() - began);
  return answer.comparisons.map(({ agree, predictions }) => ({ agree, predictions }));
}
