// A WebSocket without a network: tests play the bridge.

export class FakeSocket extends EventTarget {
  static made = [];
  sent = [];
  isClosed = false;

  constructor(url, protocol) {
    super();
    Object.assign(this, { url, protocol });
    FakeSocket.made.push(this);
  }

  static get last() {
    return FakeSocket.made.at(-1);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.isClosed = true;
  }

  /** The bridge sends. */
  push(message) {
    this.dispatchEvent(Object.assign(new Event("message"), { data: JSON.stringify(message) }));
  }

  hello(fields = {}) {
    const viewer = { scope: "operator", user_id: null, tenant_id: null, expires_at: null };
    this.push({ type: "hello", protocol: "sluice.v1", time: new Date().toISOString(), feed: "live", viewer, limits: {}, ...fields });
  }

  /** The bridge closes. */
  end(code, reason = "") {
    this.dispatchEvent(Object.assign(new Event("close"), { code, reason }));
  }

  /** The command that waits for its answer. */
  async next(type) {
    for (let turn = 0; turn < 50; turn++) {
      const command = this.sent[this.answered ?? 0];
      if (command) {
        this.answered = (this.answered ?? 0) + 1;
        if (command.type !== type) throw new Error(`expected ${type}, got ${JSON.stringify(command)}`);
        return command;
      }
      await Promise.resolve();
    }
    throw new Error(`no ${type} came`);
  }

  snapshot(fields = {}) {
    const none = { requests: [], results: [], texts: [], queue: [], lanes: [], dead_letters: [], unknown: [] };
    this.push({ type: "snapshot", ...none, last: true, ...fields });
  }
}

export const event = (id, version, state = "queued") => ({ request_id: id, state_version: version, state });
export const delta = (seq, text, attempt = 1, lastSeq = seq) => ({ type: "delta", request_id: "r", attempt, seq, last_seq: lastSeq, text });

/** Lets everything happen that waits for nothing but its turn. */
export async function settle() {
  for (let turn = 0; turn < 30; turn++) await Promise.resolve();
}
