// Pushes as an async iterator.

/** `listen(listener)` begins, and returns what ends it. At most `limit` pushes wait to be read: then it throws. */
export function pushes(listen, limit) {
  const waiting = [];
  let wake = null;
  let overrun = false;
  let ended = false;
  const stop = listen((push) => {
    if (waiting.length >= limit) overrun = true;
    else waiting.push(push);
    wake?.();
  });
  const end = async () => {
    ended = true;
    stop();
    wake?.();
    return { value: undefined, done: true };
  };
  const next = async () => {
    while (waiting.length === 0 && !overrun && !ended) await new Promise((resolve) => (wake = resolve));
    if (ended) return { value: undefined, done: true };
    if (waiting.length > 0) return { value: waiting.shift(), done: false };
    await end();
    throw new RangeError(`more than ${limit} pushes were waiting to be read`);
  };
  return { next, return: end, [Symbol.asyncIterator]: () => ({ next, return: end }) };
}
