// The service, as this page asks it: JSON in and out, an API key, and errors that say what to do.

const KEY = "crisp-api-key";

/** What the service, or the way to it, answered instead of a result. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = "", field = "", retryAfter = 0, requestId = "" } = {}) {
    super(message);
    Object.assign(this, { status, code, field, retryAfter, requestId });
  }

  /** Whether the same request may succeed a little later. */
  get isBusy() {
    return this.status === 429 || this.status === 503;
  }

  /** What a person can do about it, or "". */
  get hint() {
    if (this.isBusy) return `It asks to wait ${this.retryAfter || 1} s.`;
    if (this.status >= 500 && this.requestId) return `Its log knows this request as ${this.requestId}.`;
    return "";
  }
}

export const apiKey = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** POSTs `body` as JSON to `path`; resolves to the answer, rejects with an ApiError. */
export async function post(path, body, signal) {
  const response = await ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  return parsed(response);
}

/** GETs `path`, as JSON or, where `kind` is "text", as text. */
export async function get(path, kind = "json") {
  const response = await ask(path, {});
  return kind === "text" ? response.text() : parsed(response);
}

async function ask(path, options) {
  const key = apiKey.get();
  const headers = { ...options.headers, ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The service cannot be reached. Is it still running?");
  }
  if (response.ok) return response;
  throw await failure(response);
}

async function parsed(response) {
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The answer broke off or is not JSON. Is this a Crisp service?");
  }
}

async function failure(response) {
  const told = await response.json().then((body) => body.error ?? {}, () => ({}));
  const error = new ApiError(worded(response.status, told), {
    status: response.status,
    code: told.code,
    field: told.field,
    retryAfter: Number(response.headers.get("Retry-After")) || 0,
    requestId: response.headers.get("X-Request-ID") ?? "",
  });
  if (error.status === 401) document.dispatchEvent(new CustomEvent("crisp:key", { detail: error }));
  return error;
}

function worded(status, { message, field }) {
  if (status === 401) return "This service asks for an API key.";
  if (status === 429 || status === 503) return "The service is busy and did not take this.";
  if (!message) return `The service answered ${status}.`;
  // A person sees one text, not a list of them.
  const plain = /^(texts|inputs)/.test(field ?? "") ? message.replace(field, "The text") : message;
  return `${plain[0].toUpperCase()}${plain.slice(1)}${/[.!?]$/.test(plain) ? "" : "."}`;
}

/** Resolves after so many seconds, or rejects as soon as `signal` aborts. */
export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}
