// What of the pushes is news: by state_version, and by (attempt, seq). Pure.

/** Remembers per request how far it has come, for so many of them; the one that moved longest ago is forgotten first. */
export class Order {
  #limit;
  #known = new Map();

  constructor(limit) {
    this.#limit = limit;
  }

  /** Whether a push says something newer than all before it; if so it is remembered. */
  isNews(push) {
    switch (push.type) {
      case "status":
        return this.#grows(push.event.request_id, "version", push.event.state_version);
      case "result":
        return this.#grows(push.result.request_id, "resultVersion", push.result.state_version);
      case "delta":
      case "text":
        return this.#isNewText(push);
      case "void":
        return this.#isNewVoid(push);
      default:
        return true;
    }
  }

  #grows(requestId, field, version) {
    const known = this.#of(requestId);
    if (version <= known[field]) return false;
    known[field] = version;
    return true;
  }

  #isNewText({ type, request_id: requestId, attempt, last_seq: lastSeq }) {
    const known = this.#of(requestId);
    if (attempt < known.attempt) return false;
    // A snapshot's text replaces what there is, also where it is shorter: a bridge may be behind another.
    if (type === "delta" && attempt === known.attempt && lastSeq <= known.seq) return false;
    known.attempt = attempt;
    known.seq = lastSeq;
    return true;
  }

  #isNewVoid({ request_id: requestId, superseded_by: supersededBy }) {
    const known = this.#of(requestId);
    if (supersededBy <= known.attempt) return false;
    known.attempt = supersededBy;
    known.seq = -1;
    return true;
  }

  #of(requestId) {
    const known = this.#known.get(requestId) ?? { version: 0, resultVersion: 0, attempt: 0, seq: -1 };
    this.#known.delete(requestId);
    this.#known.set(requestId, known);
    if (this.#known.size > this.#limit) this.#known.delete(this.#known.keys().next().value);
    return known;
  }
}

/** A snapshot frame as single pushes, so that whoever listens has one way to take news. */
export function* partsOf(snapshot) {
  for (const event of snapshot.requests) yield { type: "status", event, snapshot: true };
  for (const result of snapshot.results) yield { type: "result", result, snapshot: true };
  for (const text of snapshot.texts) yield { ...text, type: "text", snapshot: true };
  for (const queue of snapshot.queue) yield { ...queue, type: "queue", snapshot: true };
  for (const history of snapshot.lane_history ?? []) yield { type: "lane_history", history, snapshot: true };
  for (const lane of snapshot.lanes) yield { type: "lane", lane, snapshot: true };
  for (const entry of snapshot.dead_letters) yield { type: "dead_letter", dead_letter: entry, snapshot: true };
  for (const requestId of snapshot.unknown) yield { type: "unknown", request_id: requestId, snapshot: true };
}

/** The request that a push is about, or undefined. */
export function requestIdOf(push) {
  return push.request_id ?? push.event?.request_id ?? push.result?.request_id ?? push.dead_letter?.letter.request_id;
}
