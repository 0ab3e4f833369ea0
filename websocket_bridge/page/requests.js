// What the page knows of requests: the newest event of each, in order, counted and bounded. No DOM.

import { STATES, stateOf } from "./format.js";

const SEARCHED = ["request_id", "correlation_id", "user_id", "tenant_id", "provider", "model", "reason", "message", "state"];

/** One request. `changedAt` is when the page learned of its newest event, or 0 if it came with a snapshot. */
class Entry {
  constructor(event, changedAt) {
    this.id = event.request_id;
    this.submittedMs = Date.parse(event.submitted_at) || 0;
    this.update(event, changedAt);
  }

  update(event, changedAt) {
    this.event = event;
    this.changedAt = changedAt;
    this.text = null;
  }

  /** The text that the filter looks through, made when it is first needed. */
  get haystack() {
    this.text ??= SEARCHED.map((field) => event_text(this.event[field])).join("\n").toLowerCase();
    return this.text;
  }
}

const event_text = (value) => (value === undefined ? "" : String(value));

const isBefore = (a, b) => a.submittedMs > b.submittedMs || (a.submittedMs === b.submittedMs && a.id > b.id);

export class Requests {
  #limit;
  #byId = new Map();
  #newestFirst = [];
  counts = Object.fromEntries(Object.keys(STATES).map((state) => [state, 0]));

  constructor(limit) {
    this.#limit = limit;
  }

  get size() {
    return this.#byId.size;
  }

  get(id) {
    return this.#byId.get(id);
  }

  /** Takes an event. An older version, or a repeat, changes nothing and gives false. */
  merge(event, changedAt) {
    const known = this.#byId.get(event.request_id);
    if (known) {
      if (event.state_version <= known.event.state_version) return false;
      this.#counted(known.event.state, -1);
      known.update(event, changedAt);
    } else {
      const entry = new Entry(event, changedAt);
      this.#byId.set(entry.id, entry);
      this.#newestFirst.splice(this.#place(entry), 0, entry);
    }
    this.#counted(event.state, 1);
    if (this.size > this.#limit) this.#forgetOne();
    return true;
  }

  /** The newest `limit` entries that match, and how many match in all. */
  find({ text, states, limit }) {
    const needle = text.trim().toLowerCase();
    const entries = [];
    let matching = 0;
    for (const entry of this.#newestFirst) {
      if (states.size > 0 && !states.has(entry.event.state)) continue;
      if (needle && !entry.haystack.includes(needle)) continue;
      matching += 1;
      if (entries.length < limit) entries.push(entry);
    }
    return { entries, matching };
  }

  #counted(state, change) {
    this.counts[state] = (this.counts[state] ?? 0) + change;
  }

  #place(entry) {
    let low = 0;
    let high = this.#newestFirst.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (isBefore(this.#newestFirst[middle], entry)) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The oldest that has ended; if all are live, the oldest. */
  #forgetOne() {
    let at = this.#newestFirst.findLastIndex((entry) => !stateOf(entry.event.state).live);
    if (at < 0) at = this.#newestFirst.length - 1;
    const [entry] = this.#newestFirst.splice(at, 1);
    this.#byId.delete(entry.id);
    this.#counted(entry.event.state, -1);
  }
}
