// The service, as this page asks it: JSON in and out, an API key, and errors that say what to do.

const KEY = "crisp-api-key";

/** What the service, or the way to it, answered instead of a result. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = "", field = "", retryAfter = 0, requestId = "" } = {}) {
    super(message);
    Object.assign(this, { status, code, field, retryAfter, requestId });
  }

  get isBusy() {
    return this.status === 429 || this.status === 503;
  }

  /** Whether the same request may succeed a little later. */
  get mayPass() {
    return this.isBusy || this.status === 0 || this.status === 502;
  }

  /** What a person can do about it, or "". */
  get hint() {
    if (this.retryAfter) return `It asks to wait ${this.retryAfter} s.`;
    if (this.status >= 500 && this.requestId) return `Its log knows this request as ${this.requestId}.`;
    return "";
  }
}

let key = stored((storage) => storage.getItem(KEY)) ?? "";

export const apiKey = {
  get: () => key,
  set(value) {
    key = value;
    stored((storage) => (value ? storage.setItem(KEY, value) : storage.removeItem(KEY)));
  },
};

/** Where the browser is told to store nothing, even to look there is an error. */
function stored(use) {
  try {
    return use(sessionStorage);
  } catch {
    return null;
  }
}

/** POSTs `body` as JSON to `path`; resolves to the answer, rejects with an ApiError. */
export async function post(path, body, signal) {
  const response = await ask(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  return read(response, "json");
}

/** GETs `path`, as JSON or, where `kind` is "text", as text. */
export async function get(path, { kind = "json", signal } = {}) {
  return read(await ask(path, { signal }), kind);
}

async function ask(path, options) {
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

async function read(response, kind) {
  try {
    return await response[kind]();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error.name !== "SyntaxError") throw new ApiError("The answer broke off.");
    throw new ApiError("The answer is not JSON. Is this a Crisp service?", { status: response.status });
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
  document.dispatchEvent(new CustomEvent("crisp:refused", { detail: error }));
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
