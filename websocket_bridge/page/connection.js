// A connection to the bridge, protocol sluice.v1 (docs/websocket.md), that comes back by itself.
//
// Its state always tells the truth: "live" only once the subscriptions were confirmed, and no longer than the bridge
// answers pings.

const SUBPROTOCOL = "sluice.v1";
const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15_000;
const STABLE_AFTER_MS = 5_000;
const OPEN_TIMEOUT_MS = 10_000;
const ANSWER_TIMEOUT_MS = 10_000;
const PING_EVERY_MS = 25_000;
const NEVER_AGAIN = new Set([1003, 1008, 1009]);

/** Whether a close code asks the client to come back. Of the bridge's own, 44xx says no and 45xx yes. */
export function mayReconnect(code) {
  return !NEVER_AGAIN.has(code) && !(code >= 4400 && code <= 4499);
}

/** Exponential, with jitter, so that the clients of a restarted bridge do not come back in step. */
export function delayMs(failures, random = Math.random) {
  const longest = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(failures, 10));
  return longest * (0.5 + random() / 2);
}

/** A command that the bridge refused, with its `code` and `field`; or one that the connection's end left open. */
export class CommandError extends Error {
  constructor({ code, message, field = null }) {
    super(message);
    this.code = code;
    this.field = field;
  }
}

export class BridgeConnection {
  #url;
  #onState;
  #onPush;
  #onOpen;
  #socket = null;
  #nextId = 1;
  #waiting = new Map();
  #failures = 0;
  #timers = {};

  /**
   * @param {string} url
   * @param {{onState: (state: {name: string, retryAt?: number, reason?: string}) => void,
   *          onPush: (push: object) => void, onOpen: () => Promise<void>}} handlers
   *   `onOpen` subscribes; the state is "live" once it is done.
   */
  constructor(url, { onState, onPush, onOpen }) {
    this.#url = url;
    this.#onState = onState;
    this.#onPush = onPush;
    this.#onOpen = onOpen;
    addEventListener("online", () => this.#timers.retry && this.retryNow());
    addEventListener("offline", () => this.#ping());
  }

  retryNow() {
    this.#drop();
    this.#onState({ name: "connecting" });
    const socket = new WebSocket(this.#url, SUBPROTOCOL);
    this.#socket = socket;
    this.#timers.open = setTimeout(() => this.#lost("the bridge did not answer"), OPEN_TIMEOUT_MS);
    socket.addEventListener("open", () => this.#opened(socket));
    socket.addEventListener("message", (message) => socket === this.#socket && this.#receive(message.data));
    socket.addEventListener("close", (close) => socket === this.#socket && this.#closed(close));
  }

  /** Sends a command, and gives its answer. */
  request(command) {
    const socket = this.#socket;
    if (!socket || socket.readyState !== WebSocket.OPEN) {
      return Promise.reject(new CommandError({ code: "not_connected", message: "not connected" }));
    }
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#lost("the bridge stopped answering"), ANSWER_TIMEOUT_MS);
      this.#waiting.set(id, { resolve, reject, timer });
      socket.send(JSON.stringify({ id, ...command }));
    });
  }

  async #opened(socket) {
    if (socket !== this.#socket) return;
    clearTimeout(this.#timers.open);
    try {
      await this.#onOpen();
    } catch (error) {
      if (socket !== this.#socket) return;
      if (error.code === "not_connected") return; // the close event tells
      this.#giveUp(error.field ? `${error.field}: ${error.message}` : error.message);
      return;
    }
    if (socket !== this.#socket) return;
    this.#timers.stable = setTimeout(() => (this.#failures = 0), STABLE_AFTER_MS);
    this.#timers.ping = setInterval(() => this.#ping(), PING_EVERY_MS);
    this.#onState({ name: "live" });
  }

  #receive(text) {
    const message = JSON.parse(text);
    if (!("id" in message)) {
      this.#onPush(message);
      return;
    }
    const command = this.#waiting.get(message.id);
    if (!command) return;
    this.#waiting.delete(message.id);
    clearTimeout(command.timer);
    if (message.type === "error") command.reject(new CommandError(message));
    else command.resolve(message);
  }

  #ping() {
    this.request({ type: "ping" }).catch(() => {});
  }

  #closed({ code, reason }) {
    if (mayReconnect(code)) this.#lost(reason || "the connection was lost");
    else this.#giveUp(reason || `closed with code ${code}`);
  }

  #lost(reason) {
    this.#drop();
    const delay = delayMs(this.#failures++);
    this.#timers.retry = setTimeout(() => this.retryNow(), delay);
    this.#onState({ name: "waiting", retryAt: Date.now() + delay, reason });
  }

  #giveUp(reason) {
    this.#drop();
    this.#onState({ name: "closed", reason });
  }

  #drop() {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#timers = {};
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    const gone = new CommandError({ code: "not_connected", message: "the connection ended" });
    for (const { reject, timer } of this.#waiting.values()) {
      clearTimeout(timer);
      reject(gone);
    }
    this.#waiting.clear();
  }
}
