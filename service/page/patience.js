// Asking again where trouble may pass: a busy service, a restart, a network that comes back.

const LONGEST = 30; // seconds between two tries of a service that does not answer

/** Resolves after so many seconds, or rejects as soon as `signal`, if any, aborts. */
export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, 1000 * seconds);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/**
 * Resolves to what `ask()` does, asking again where its ApiError may pass: after as long as the service
 * wants, however often; where nothing says how long, after 1, 2, 4... seconds, `tries` times in a row.
 * `onWait(seconds, error)` is told of every pause, and `onWait(0)` of its end.
 */
export async function patiently(ask, { signal, tries = Infinity, onWait = () => {} }) {
  for (let failed = 0; ;) {
    try {
      return await ask();
    } catch (error) {
      failed = error.retryAfter ? 0 : failed + 1;
      if (!error.mayPass || failed >= tries) throw error;
      const seconds = error.retryAfter || Math.min(LONGEST, 2 ** (failed - 1));
      onWait(seconds, error);
      await pause(seconds, signal);
      onWait(0);
    }
  }
}
