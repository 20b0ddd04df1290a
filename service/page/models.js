// What models the service holds: asked for until it says, and again when they may have changed.

import { get } from "./api.js";
import { patiently } from "./patience.js";

let models = null;
let asking = null; // AbortController of the question under way

/** The answer of GET /models, or null while there is none. */
export const known = () => models;

/** Names of variants, the default first: it is what a caller gets who asks for none. */
export const ordered = (names) => [...names].sort((a, b) => (b === models?.default) - (a === models?.default));

/** The names of all variants; none while they are not known. */
export const variantNames = () => ordered(Object.keys(models?.variants ?? {}));

/** Tells every part with "crisp:models" what models there are, and what others when they change. */
export function startModels() {
  // Another set of models may have come while nobody looked, or has come if one is not known.
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") loadModels();
  });
  document.addEventListener("crisp:refused", ({ detail }) => {
    if (detail.code === "unknown_variant") loadModels();
  });
  loadModels();
}

export async function loadModels() {
  asking?.abort();
  asking = new AbortController();
  const { signal } = asking;
  let answer;
  try {
    answer = await patiently(() => get("models", { signal }), { signal });
  } catch {
    return; // the first request of a person will say what is wrong
  }
  if (JSON.stringify(answer) === JSON.stringify(models)) return;
  models = answer;
  document.dispatchEvent(new CustomEvent("crisp:models"));
}
