// What a client follows, and as which commands that goes over the wire. Pure.

export const IDS_PER_COMMAND = 400; // of at most 128 characters: it stays below the 64 KiB of a command
const SUBSCRIPTIONS_PER_RESUME = 50;
const SELECTIONS = ["correlation_id", "user_id", "tenant_id", "all", "lanes", "dead_letters"];

/** One thing that is followed: a request id, or another selection. `state`: new, sent, confirmed. */
class Entry {
  constructor(requestId, selection, options) {
    this.requestId = requestId;
    this.selection = selection;
    this.options = options;
    this.state = "new";
    this.settled = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    this.settled.catch(() => {}); // who does not wait for it hears of a refusal by the event
  }
}

export class Subscriptions {
  #entries = new Map();

  /** Takes a subscription as in docs/websocket.md. Gives its entries, which are to be sent. */
  add({ request_ids: requestIds, ...rest }) {
    if (requestIds) return requestIds.map((id) => this.#put(`request:${id}`, new Entry(id, {}, rest)));
    const selection = Object.fromEntries(SELECTIONS.filter((name) => rest[name]).map((name) => [name, rest[name]]));
    const options = Object.fromEntries(Object.entries(rest).filter(([name]) => !SELECTIONS.includes(name)));
    return [this.#put(JSON.stringify(selection), new Entry(null, selection, options))];
  }

  /** Takes entries out. Gives those that the bridge may know of. */
  remove({ request_ids: requestIds, ...selection }) {
    const keys = requestIds ? requestIds.map((id) => `request:${id}`) : [JSON.stringify(selection)];
    const found = keys.map((key) => this.#entries.get(key)).filter(Boolean);
    for (const key of keys) this.#entries.delete(key);
    for (const entry of found) entry.resolve();
    return found.filter((entry) => entry.state !== "new");
  }

  /** Takes out what was refused, unless it was replaced meanwhile. */
  refuse(entry, error) {
    for (const [key, found] of this.#entries) if (found === entry) this.#entries.delete(key);
    entry.reject(error);
  }

  confirm(entries) {
    for (const entry of entries) {
      entry.state = "confirmed";
      entry.resolve();
    }
  }

  /** After a lost connection: only what was confirmed can be resumed; the rest had no snapshot yet. */
  interrupt() {
    for (const entry of this.#entries.values()) if (entry.state === "sent") entry.state = "new";
  }

  /** Nothing is confirmed any more: all is subscribed to afresh. */
  restart() {
    for (const entry of this.#entries.values()) entry.state = "new";
  }

  rejectAll(error) {
    for (const entry of this.#entries.values()) entry.reject(error);
    this.#entries.clear();
  }

  /** The next command's worth of what is not sent yet, or null. */
  nextGroup() {
    const fresh = [...this.#entries.values()].filter((entry) => entry.state === "new");
    return groups(fresh).next().value ?? null;
  }

  /** What is confirmed, in portions of one `resume` each. */
  *resumable() {
    const confirmed = [...this.#entries.values()].filter((entry) => entry.state === "confirmed");
    let portion = [];
    let ids = 0;
    for (const group of groups(confirmed)) {
      ids += group.entries.length;
      if (portion.length > 0 && (ids > IDS_PER_COMMAND || portion.length === SUBSCRIPTIONS_PER_RESUME)) {
        yield portion;
        portion = [];
        ids = group.entries.length;
      }
      portion.push(group);
    }
    if (portion.length > 0) yield portion;
  }

  #put(key, entry) {
    this.#entries.get(key)?.resolve();
    this.#entries.delete(key);
    this.#entries.set(key, entry);
    return entry;
  }
}

/** Entries as subscriptions: ids with the same options together. `{subscription, entries}`. */
function* groups(entries) {
  const byOptions = new Map();
  for (const entry of entries) {
    if (entry.requestId === null) {
      yield { subscription: { ...entry.selection, ...entry.options }, entries: [entry] };
      continue;
    }
    const key = JSON.stringify(entry.options);
    if (!byOptions.has(key)) byOptions.set(key, []);
    byOptions.get(key).push(entry);
  }
  for (const alike of byOptions.values()) {
    for (let start = 0; start < alike.length; start += IDS_PER_COMMAND) {
      const some = alike.slice(start, start + IDS_PER_COMMAND);
      yield { subscription: { request_ids: some.map((entry) => entry.requestId), ...some[0].options }, entries: some };
    }
  }
}
