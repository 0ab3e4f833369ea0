// Whether and when to come back. Pure.

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 30_000;
const NEVER_AGAIN = new Set([1002, 1003, 1007, 1008, 1009, 1010]);
const FULL = 1013;
const FULL_DELAY_MS = 5_000;

/** Whether a close code asks the client to come back. Of the bridge's own, 44xx says no and 45xx yes. */
export function mayReconnect(code) {
  return !NEVER_AGAIN.has(code) && !(code >= 4400 && code <= 4499);
}

/** Milliseconds until the next try: exponential with full jitter, so that many clients do not come back in step. */
export function backoffMs(failures, random = Math.random, code = 0) {
  const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(failures, 16));
  return random() * longest + (code === FULL ? FULL_DELAY_MS : 0); // a bridge that is full says: later
}
