// Words and numbers as people read them. Pure.

export const STATES = {
  queued: { label: "Queued", live: true },
  processing: { label: "Processing", live: true },
  retry_scheduled: { label: "Retry scheduled", live: true },
  completed: { label: "Completed", live: false },
  failed: { label: "Failed", live: false },
  expired: { label: "Expired", live: false },
  cancelled: { label: "Cancelled", live: false },
  rejected: { label: "Rejected", live: false },
};

export function stateOf(name) {
  return Object.hasOwn(STATES, name) ? STATES[name] : { label: String(name), live: false };
}

/** 0.4 s, 12 s, 3 min 05 s, 2 h 10 min. Finer steps while they can still be read. */
export function duration(milliseconds) {
  const ms = Math.max(0, milliseconds);
  if (ms < 9_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${String(seconds % 60).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** The same for durations that have ended: short ones in milliseconds. */
export function exactDuration(milliseconds) {
  return milliseconds < 1000 ? `${Math.round(Math.max(0, milliseconds))} ms` : duration(milliseconds);
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

export const timeOfDay = (milliseconds) => (Number.isFinite(milliseconds) ? clock.format(milliseconds) : "");
export const fullTime = (milliseconds) => (Number.isFinite(milliseconds) ? full.format(milliseconds) : "");
export const count = (number) => number.toLocaleString();
export const words = (name) => String(name).replaceAll("_", " ");

/** Dollars with the digits that matter, or null where nobody knows. */
export function cost(usd) {
  if (usd === undefined || usd === null) return null;
  if (usd === 0) return "$0";
  return usd >= 1 ? `$${usd.toFixed(2)}` : `$${Number(usd.toPrecision(3)).toFixed(8).replace(/0+$/, "")}`;
}

/** A request's cost in a word: what it was, "unknown" where it ended without, nothing before. */
export function costOf(entry) {
  if (!entry.result) return "";
  return cost(entry.result.cost_usd) ?? (entry.result.attempts.length > 0 ? "unknown" : "");
}

/** What there is to say of a request beside its state. `nowMs` is the bridge's clock. */
export function note({ event, queue }, nowMs) {
  if (event.state === "retry_scheduled" && event.retry_at) {
    const left = Date.parse(event.retry_at) - nowMs;
    const when = left > 0 ? `Next attempt in ${duration(left)}` : "Next attempt is due";
    return event.reason ? `${when} (${words(event.reason)})` : when;
  }
  if (event.state === "queued" && queue) {
    const place = queue.about_position <= 1 ? "Next in line" : `About number ${count(queue.about_position)} in line`;
    if (queue.about_wait_ms === null) return `${place}, for how long is not known`;
    return queue.about_wait_ms < 100 ? `${place}, starts at once` : `${place}, about ${duration(queue.about_wait_ms)} to wait`;
  }
  const why = [event.reason && words(event.reason), event.message].filter(Boolean);
  return why.join(": ");
}

/** Since it was submitted, or until it ended. */
export function elapsedMs({ event, result }, nowMs) {
  if (!stateOf(event.state).live) {
    const timings = result?.timings ?? event.timings;
    if (timings?.total_ms > 0) return timings.total_ms;
  }
  const end = stateOf(event.state).live ? nowMs : Date.parse(event.occurred_at);
  return Math.max(0, end - Date.parse(event.submitted_at));
}
