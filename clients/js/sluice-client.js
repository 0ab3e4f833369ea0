// A client of the live view, protocol sluice.v1 (docs/websocket.md): comes back by itself, resumes where it was, and
// gives each piece of news once, in order.

import { watchNetwork } from "./network.js";
import { Order, partsOf, requestIdOf } from "./order.js";
import { pushes } from "./pushes.js";
import { backoffMs, mayReconnect } from "./reconnecting.js";
import { IDS_PER_COMMAND, Subscriptions } from "./subscriptions.js";

export { backoffMs, mayReconnect } from "./reconnecting.js";
export { Transcript } from "./transcript.js";

const SUBPROTOCOL = "sluice.v1";
const IDLE_CODE = 4408;
const STABLE_AFTER_MS = 5_000;
const OPEN_TIMEOUT_MS = 10_000;
const ANSWER_TIMEOUT_MS = 10_000;
const RESUME_TIMEOUT_MS = 45_000; // the bridge itself may wait 20 s for Kafka before it answers
const PING_EVERY_MS = 25_000;
const BAD_TICKETS_IN_A_ROW = 3;
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export const TERMINAL_STATES = new Set(["completed", "failed", "expired", "cancelled", "rejected"]);

/** A command that the bridge refused, with its `code` and `field`; or `not_connected`. */
export class CommandError extends Error {
  constructor({ code, message, field = null }) {
    super(message);
    this.name = "CommandError";
    this.code = code;
    this.field = field;
  }
}

const notConnected = () => new CommandError({ code: "not_connected", message: "the connection ended" });

export class SluiceClient {
  /** `{name, since, reason?, code?, retryAt?}`, times in ms since 1970. See the README for the names. */
  state = { name: "idle", since: Date.now() };
  /** How the bridge stands with Kafka: starting, catching_up, live, away. */
  feed = "starting";
  /** Who the bridge takes us for; null before that is known. */
  viewer = null;
  /** When the bridge was heard last; null if never. */
  heardAt = null;
  /** What to add to `Date.now()` for the bridge's time. */
  clockOffsetMs = 0;

  #url;
  #options;
  #listeners = new Map();
  #order;
  #subscriptions = new Subscriptions();
  #socket = null;
  #timers = new Map();
  #token = null;
  #replaced = null; // while a gap is filled: which requests the fresh snapshot holds
  #holdsToken = false; // while several `resume` share one, a newer one would skip what the later ones missed
  #commands = [];
  #nextId = 1;
  #failures = 0;
  #badTickets = 0;
  #flushing = null;
  #unlisten = null;

  constructor(url, options = {}) {
    this.#url = String(url);
    this.#options = { WebSocket: globalThis.WebSocket, random: Math.random, rememberedRequests: 50_000, ...options };
    this.#order = new Order(this.#options.rememberedRequests);
  }

  get isLive() {
    return this.state.name === "live";
  }

  /** Connects, and stays connected until `close`. While it waits for its next try: tries now. */
  connect() {
    if (!["idle", "waiting", "closed"].includes(this.state.name)) return;
    this.#unlisten ??= watchNetwork(this);
    this.#open();
  }

  /** Ends the connection, and follows nothing any more. */
  close() {
    this.#drop(1000);
    this.#unlisten?.();
    this.#unlisten = null;
    this.#token = null;
    this.#subscriptions.rejectAll(notConnected());
    this.#setState({ name: "idle" });
  }

  /** Follows something, over all reconnects. Fulfilled once its snapshot is here; rejected where it is refused. */
  async subscribe(subscription) {
    const entries = this.#subscriptions.add(subscription);
    if (this.isLive) queueMicrotask(() => this.#flush().catch(() => {}));
    else if (this.state.name === "closed" && this.state.code === IDLE_CODE) this.connect();
    await Promise.all(entries.map((entry) => entry.settled));
  }

  /** Follows it no longer: the selection of a `subscribe` before. */
  async unsubscribe(selection) {
    const known = this.#subscriptions.remove(selection);
    if (known.length === 0 || !this.#socket) return;
    const ids = known.map((entry) => entry.requestId).filter((id) => id !== null);
    const commands = ids.length === 0 ? [selection] : [];
    for (let at = 0; at < ids.length; at += IDS_PER_COMMAND) commands.push({ request_ids: ids.slice(at, at + IDS_PER_COMMAND) });
    await Promise.all(commands.map((command) => this.#command({ type: "unsubscribe", ...command }).catch(() => {})));
  }

  /** Asks whether the bridge is there. Where no answer comes, the connection is given up and made anew. */
  async ping() {
    if (this.isLive) await this.#command({ type: "ping" }).catch(() => {});
  }

  /** Calls `listener(push)` for each push of a type, `*` for all. Returns what ends that. */
  on(type, listener) {
    if (!this.#listeners.has(type)) this.#listeners.set(type, new Set());
    this.#listeners.get(type).add(listener);
    return () => this.#listeners.get(type).delete(listener);
  }

  /** All pushes, or those of one request, from now on. Who lags behind by more than `limit` gets an error. */
  events({ requestId, limit = 10_000 } = {}) {
    const isWanted = (push) => requestId === undefined || requestIdOf(push) === requestId;
    return pushes((listener) => this.on("*", (push) => isWanted(push) && listener(push)), limit);
  }

  // --- the connection

  #open() {
    this.#drop();
    this.#setState({ name: "connecting" });
    const socket = new this.#options.WebSocket(this.#url, SUBPROTOCOL);
    this.#socket = socket;
    this.#after("open", OPEN_TIMEOUT_MS, () => this.#lost("the bridge did not answer"));
    socket.addEventListener("message", ({ data }) => socket === this.#socket && this.#receive(data));
    socket.addEventListener("close", ({ code, reason }) => socket === this.#socket && this.#closed(code, reason));
  }

  async #greet(hello) {
    const socket = this.#socket;
    this.#clear("open");
    this.clockOffsetMs = Date.parse(hello.time) - Date.now();
    this.viewer = hello.viewer;
    try {
      if (this.viewer === null) await this.#present("authenticate");
      if (socket !== this.#socket) return;
      this.#emit({ type: "viewer", viewer: this.viewer });
      await this.#restore();
      if (socket !== this.#socket) return;
      this.#after("stable", STABLE_AFTER_MS, () => (this.#failures = 0));
      this.#pingLater();
      this.#refreshLater();
      this.#setState({ name: "live" });
      await this.#flush(); // what was asked for in the very moment
    } catch (error) {
      if (socket !== this.#socket) return; // the close told already
      if (error.isFinal) this.#giveUp(error.message);
      else this.#lost(error.message);
    }
  }

  /** Gets a fresh ticket, and shows it to the bridge. */
  async #present(type) {
    const { getTicket } = this.#options;
    if (!getTicket) throw Object.assign(new Error("this bridge asks for a ticket"), { isFinal: true });
    const socket = this.#socket;
    const ticket = await getTicket();
    if (socket !== this.#socket) throw notConnected();
    try {
      this.viewer = (await this.#command({ type, ticket })).viewer;
      this.#badTickets = 0;
    } catch (error) {
      if (error.code !== "bad_ticket") throw error;
      const isFinal = ++this.#badTickets >= BAD_TICKETS_IN_A_ROW;
      throw Object.assign(new Error(`the ticket was refused: ${error.message}`), { isFinal });
    }
  }

  /** Resumes what was followed before, and then subscribes to what is new. */
  async #restore() {
    const portions = [...this.#subscriptions.resumable()];
    if (this.#token !== null && portions.length > 0) await this.#resume(portions);
    else if (portions.length > 0) this.#startOver();
    await this.#flush();
    this.#tellReplaced();
  }

  /** Without a token that is good for something all snapshots are fetched afresh: a gap as well. */
  #startOver() {
    this.#subscriptions.restart();
    this.#token = null;
    this.#replaced = new Set();
    this.#emit({ type: "gap", gap: "invalid" });
  }

  #tellReplaced() {
    if (this.#replaced) this.#emit({ type: "replaced", request_ids: this.#replaced });
    this.#replaced = null;
  }

  async #resume(portions) {
    this.#setState({ name: "resuming" });
    const socket = this.#socket;
    const token = this.#token;
    let newest = null;
    let gaps = 0;
    this.#holdsToken = true;
    this.#replaced = new Set();
    try {
      for (const groups of portions) {
        const command = { type: "resume", token, subscriptions: groups.map(({ subscription }) => subscription) };
        const answer = await this.#command(command, { timeoutMs: RESUME_TIMEOUT_MS, until: endOfResume });
        newest = answer.token ?? newest;
        gaps += answer.recovered ? 0 : 1;
      }
      this.#token = newest ?? token;
      if (gaps < portions.length) this.#replaced = null;
      this.#tellReplaced();
    } catch (error) {
      if (socket !== this.#socket || error.code === "not_connected") throw error;
      this.#startOver(); // refused as a whole: each by itself will tell which it is
    } finally {
      this.#holdsToken = false;
    }
  }

  #flush() {
    this.#flushing ??= this.#subscribeAll().finally(() => (this.#flushing = null));
    return this.#flushing;
  }

  async #subscribeAll() {
    for (let group; (group = this.#subscriptions.nextGroup()) !== null; ) {
      const { subscription, entries } = group;
      for (const entry of entries) entry.state = "sent";
      try {
        await this.#command({ type: "subscribe", ...subscription }, { until: endOfSnapshot });
        this.#subscriptions.confirm(entries);
      } catch (error) {
        if (error.code === "not_connected") throw error;
        this.#refuse(entries, error);
      }
    }
  }

  /** One bad id of many is no reason to refuse the others. */
  #refuse(entries, error) {
    const at = /^request_ids\.(\d+)$/.exec(error.field ?? "")?.[1];
    const bad = at === undefined ? entries : [entries[Number(at)]];
    for (const entry of entries) if (!bad.includes(entry)) entry.state = "new";
    for (const entry of bad) {
      this.#subscriptions.refuse(entry, error);
      const subscription = entry.requestId === null ? entry.selection : { request_ids: [entry.requestId] };
      this.#emit({ type: "refused", subscription, error });
    }
  }

  // --- frames

  #receive(text) {
    this.heardAt = Date.now();
    const message = JSON.parse(text);
    const command = this.#commands[0];
    if ("id" in message) {
      if (command?.id === message.id) this.#answered(command, message);
      return;
    }
    if (typeof message.resume === "string" && !this.#holdsToken) this.#token = message.resume;
    this.#take(message);
    if (!command?.answer) return;
    this.#after("answer", command.timeoutMs, command.onTimeout);
    if (command.until(command.answer, message)) this.#done(command, { ...command.answer, token: message.resume });
  }

  #take(push) {
    if (push.type === "hello" || push.type === "feed") this.feed = push.feed;
    if (push.type === "snapshot") {
      for (const part of partsOf(push)) {
        if (part.type === "status") this.#replaced?.add(part.event.request_id);
        if (this.#order.isNews(part)) this.#emit(part);
      }
    } else if (push.type !== "position" && this.#order.isNews(push)) this.#emit(push);
    if (push.type === "hello") this.#greet(push);
  }

  #answered(command, answer) {
    if (answer.type === "error") {
      this.#settle(command).reject(new CommandError(answer));
    } else if (command.until) {
      command.answer = answer;
      if (answer.gap) this.#emit({ type: "gap", gap: answer.gap });
    } else this.#done(command, answer);
  }

  #done(command, answer) {
    this.#settle(command).resolve(answer);
  }

  #settle(command) {
    this.#clear("answer");
    this.#commands.shift();
    this.#send();
    return command;
  }

  /** One after the other, as the bridge carries them out. `until`: which push ends what follows the answer. */
  #command(fields, { timeoutMs = ANSWER_TIMEOUT_MS, until = null } = {}) {
    if (!this.#socket) return Promise.reject(notConnected());
    const onTimeout = () => this.#lost("the bridge stopped answering");
    return new Promise((resolve, reject) => {
      this.#commands.push({ id: this.#nextId++, fields, timeoutMs, until, onTimeout, resolve, reject, answer: null });
      if (this.#commands.length === 1) this.#send();
    });
  }

  #send() {
    const command = this.#commands[0];
    if (!command) return;
    this.#after("answer", command.timeoutMs, command.onTimeout);
    this.#socket.send(JSON.stringify({ id: command.id, ...command.fields }));
  }

  // --- what goes wrong, and time

  #closed(code, reason) {
    const why = reason || (code === 1006 ? "the connection was lost" : `closed with code ${code}`);
    if (mayReconnect(code)) this.#lost(why, code);
    else this.#giveUp(why, code);
  }

  #lost(reason, code) {
    this.#drop();
    const delay = backoffMs(this.#failures++, this.#options.random, code);
    this.#after("retry", delay, () => this.#open());
    this.#setState({ name: "waiting", retryAt: Date.now() + delay, reason, code });
  }

  #giveUp(reason, code) {
    this.#drop();
    this.#setState({ name: "closed", reason, code });
  }

  #drop(code) {
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.#timers.clear();
    const socket = this.#socket;
    this.#socket = null;
    this.#replaced = null;
    socket?.close(code);
    this.#subscriptions.interrupt();
    for (const command of this.#commands.splice(0)) command.reject(notConnected());
  }

  #pingLater() {
    this.#after("ping", PING_EVERY_MS, () => {
      this.ping();
      this.#pingLater();
    });
  }

  #refreshLater() {
    if (!this.viewer?.expires_at || !this.#options.getTicket) return;
    const leftMs = Date.parse(this.viewer.expires_at) - (Date.now() + this.clockOffsetMs);
    const delay = Math.min(LONGEST_TIMER_MS, Math.max(1_000, leftMs * 0.7));
    this.#after("refresh", delay, () => this.#present("refresh").catch(() => {}).then(() => this.#socket && this.#refreshLater()));
  }

  #after(name, ms, work) {
    this.#clear(name);
    this.#timers.set(name, setTimeout(work, ms));
  }

  #clear(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }

  #setState(state) {
    this.state = { ...state, since: Date.now() };
    this.#emit({ type: "state", state: this.state });
  }

  #emit(push) {
    for (const type of [push.type, "*"]) {
      for (const listener of this.#listeners.get(type) ?? []) {
        try {
          listener(push);
        } catch (error) {
          setTimeout(() => { throw error; }, 0); // the listener's own fault: told as such, and no end of the connection
        }
      }
    }
  }
}

const endOfSnapshot = (_answer, push) => push.type === "snapshot" && push.last;
const endOfResume = (answer, push) => answer.recovered ? push.type === "position" : endOfSnapshot(answer, push);

