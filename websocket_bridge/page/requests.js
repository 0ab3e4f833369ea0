// What the page knows of requests: the newest event of each, in order, counted and bounded. No DOM.

import { STATES, stateOf } from "./format.js";

const SEARCHED = ["request_id", "correlation_id", "user_id", "tenant_id", "provider", "model", "reason", "message", "state"];

const HISTORY = 40;
const EARLY_RESULTS = 1_000;

/** One request. `changedAt` is when the page learned of its newest event, or 0 if it came with a snapshot. */
class Entry {
  /** The events that the page saw, oldest first. */
  history = [];
  /** How it ended, as far as it did. */
  result = null;
  /** About where it stands in its lane, until its next event. */
  queue = null;
  /** Grows with every change. */
  revision = 0;

  constructor(event, changedAt) {
    this.id = event.request_id;
    this.submittedMs = Date.parse(event.submitted_at) || 0;
    this.update(event, changedAt);
  }

  update(event, changedAt) {
    this.event = event;
    this.changedAt = changedAt;
    this.text = null;
    this.queue = null;
    this.history.push(event);
    if (this.history.length > HISTORY) this.history.shift();
    // A redriven request lives again: how it ended before says nothing of now.
    if (this.result && this.result.state_version < event.state_version) this.result = null;
    this.revision += 1;
  }

  set(fields) {
    Object.assign(this, fields);
    this.revision += 1;
  }

  /** The text that the filter looks through, made when it is first needed. */
  get haystack() {
    this.text ??= SEARCHED.map((field) => eventText(this.event[field])).join("\n").toLowerCase();
    return this.text;
  }
}

const eventText = (value) => (value === undefined ? "" : String(value));

const isBefore = (a, b) => a.submittedMs > b.submittedMs || (a.submittedMs === b.submittedMs && a.id > b.id);

export class Requests {
  #limit;
  #earlyResults = new Map(); // that came before the status of the same version
  #byId = new Map();
  #newestFirst = [];
  counts = Object.fromEntries(Object.keys(STATES).map((state) => [state, 0]));

  constructor(limit) {
    this.#limit = limit;
  }

  get size() {
    return this.#byId.size;
  }

  /** How many have not ended. */
  get live() {
    return Object.keys(STATES).reduce((sum, name) => sum + (STATES[name].live ? this.counts[name] : 0), 0);
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
    const early = this.#earlyResults.get(event.request_id);
    if (early) this.takeResult(early);
    if (this.size > this.#limit) this.#forgetOne();
    return true;
  }

  /** A result belongs to the status of its version: it waits for that one, or comes too late. */
  takeResult(result) {
    const id = result.request_id;
    const known = this.#byId.get(id);
    this.#earlyResults.delete(id);
    if (!known || known.event.state_version < result.state_version) {
      this.#earlyResults.set(id, result);
      if (this.#earlyResults.size > EARLY_RESULTS) this.#earlyResults.delete(this.#earlyResults.keys().next().value);
    } else if (known.event.state_version === result.state_version) {
      known.set({ result });
    }
  }

  takeQueue(queue) {
    const known = this.#byId.get(queue.request_id);
    if (known?.event.state === "queued") known.set({ queue });
  }

  /** After a gap: what had not ended and is not among these, the bridge does not know any more. */
  keepOnly(ids) {
    for (const entry of [...this.#byId.values()]) {
      if (ids.has(entry.id) || !stateOf(entry.event.state).live) continue;
      this.#byId.delete(entry.id);
      this.#newestFirst.splice(this.#newestFirst.indexOf(entry), 1);
      this.#counted(entry.event.state, -1);
    }
  }

  /** All that match, newest first. */
  find({ text, states }) {
    const needle = text.trim().toLowerCase();
    if (!needle && states.size === 0) return this.#newestFirst.slice(); // the reader keeps it, to see what moved
    return this.#newestFirst.filter(
      (entry) => (states.size === 0 || states.has(entry.event.state)) && (!needle || entry.haystack.includes(needle)),
    );
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
