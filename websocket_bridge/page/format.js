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

/** What there is to say of a request beside its state. `nowMs` is the bridge's clock. */
export function note(event, nowMs) {
  if (event.state === "retry_scheduled" && event.retry_at) {
    const left = Date.parse(event.retry_at) - nowMs;
    const when = left > 0 ? `Next attempt in ${duration(left)}` : "Next attempt is due";
    return event.reason ? `${when} (${words(event.reason)})` : when;
  }
  if (event.state === "queued" && event.queue_position !== undefined) {
    const ahead = event.queue_position === 0 ? "Next in line" : `${count(event.queue_position)} ahead`;
    return event.estimated_wait_ms === undefined ? ahead : `${ahead}, about ${duration(event.estimated_wait_ms)}`;
  }
  const why = [event.reason && words(event.reason), event.message].filter(Boolean);
  return why.join(": ");
}

/** Since it was submitted, or until it ended. */
export function elapsedMs(event, nowMs) {
  if (event.timings && event.timings.total_ms > 0) return event.timings.total_ms;
  const end = stateOf(event.state).live ? nowMs : Date.parse(event.occurred_at);
  return Math.max(0, end - Date.parse(event.submitted_at));
}
