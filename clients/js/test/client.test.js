import assert from "node:assert/strict";
import test, { beforeEach, mock } from "node:test";

import { SluiceClient, backoffMs, mayReconnect } from "../sluice-client.js";
import { FakeSocket, delta, event, settle } from "./fake_socket.js";

beforeEach(() => {
  FakeSocket.made = [];
  mock.timers.reset();
  mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_800_000_000_000 });
});

const make = (options = {}) => {
  const client = new SluiceClient("ws://bridge/ws", { WebSocket: FakeSocket, random: () => 1, ...options });
  const seen = [];
  client.on("*", (push) => seen.push(push));
  return { client, seen, types: () => seen.map(({ type }) => type) };
};

/** Connected, and following request r with its first snapshot. */
const live = async (options) => {
  const made = make(options);
  made.client.connect();
  const subscribed = made.client.subscribe({ request_ids: ["r"], deltas: true });
  const socket = FakeSocket.last;
  socket.hello();
  const { id } = await socket.next("subscribe");
  socket.push({ id, type: "subscribed", subscriptions: 1 });
  socket.snapshot({ requests: [event("r", 1)], resume: "t1" });
  await settle();
  await subscribed;
  assert.equal(made.client.state.name, "live");
  return { ...made, socket };
};

const reconnected = async () => {
  mock.timers.tick(60_000);
  const socket = FakeSocket.last;
  socket.hello();
  await settle();
  return socket;
};

test("it is live once its subscriptions are confirmed, and not before", async () => {
  const { client } = make();
  client.connect();
  client.subscribe({ request_ids: ["a"] });
  client.subscribe({ lanes: true });
  const socket = FakeSocket.last;
  assert.equal(socket.protocol, "sluice.v1");
  assert.equal(client.state.name, "connecting");
  socket.hello();
  for (const wanted of [{ lanes: true }, { request_ids: ["a"] }]) {
    const { id, type, ...subscription } = await socket.next("subscribe");
    assert.deepEqual(subscription, wanted);
    socket.push({ id, type: "subscribed", subscriptions: 1 });
    await settle();
    assert.equal(client.state.name, "connecting");
    socket.snapshot();
    await settle();
  }
  assert.equal(client.state.name, "live");
});

test("after a lost connection it resumes with the newest token, and takes what it missed once", async () => {
  const { client, seen, socket } = await live();
  socket.push({ type: "status", event: event("r", 2), resume: "t2" });
  socket.end(1006);
  assert.equal(client.state.name, "waiting");
  const next = await reconnected();
  const { id, type, ...resume } = await next.next("resume");
  assert.deepEqual(resume, { token: "t2", subscriptions: [{ request_ids: ["r"], deltas: true }] });
  next.push({ id, type: "resumed", recovered: true, events: 2, gap: null, subscriptions: 1 });
  assert.equal(client.state.name, "resuming");
  next.push({ type: "status", event: event("r", 2) });
  next.push({ type: "status", event: event("r", 3) });
  next.push({ type: "position", resume: "t3" });
  await settle();
  assert.equal(client.state.name, "live");
  assert.deepEqual(seen.filter(({ type }) => type === "status").map((push) => push.event.state_version), [1, 2, 3]);
});

test("a gap is told, its snapshot taken, and what it holds is named", async () => {
  const { client, seen, types, socket } = await live();
  socket.end(1001);
  const next = await reconnected();
  const { id } = await next.next("resume");
  next.push({ id, type: "resumed", recovered: false, events: 0, gap: "expired", subscriptions: 1 });
  next.snapshot({ requests: [event("r", 1), event("x", 4)], last: false });
  next.snapshot({ resume: "t9" });
  await settle();
  assert.equal(client.state.name, "live");
  assert.deepEqual(types().slice(-5), ["state", "gap", "status", "replaced", "state"]);
  assert.deepEqual([...seen.find(({ type }) => type === "replaced").request_ids], ["r", "x"]);
});

test("a connection lost in the middle of several resumes starts from the old token again", async () => {
  const { client, socket } = await live();
  client.subscribe({ request_ids: Array.from({ length: 500 }, (_, number) => `r${number}`) });
  await settle();
  for (const count of [400, 100]) {
    const command = await socket.next("subscribe");
    assert.equal(command.request_ids.length, count);
    socket.push({ id: command.id, type: "subscribed", subscriptions: count });
    socket.snapshot({ resume: "t1" });
    await settle();
  }
  socket.end(1006);
  const next = await reconnected();
  const first = await next.next("resume");
  next.push({ id: first.id, type: "resumed", recovered: true, events: 0, gap: null, subscriptions: 1 });
  next.push({ type: "position", resume: "t2" });
  assert.equal((await next.next("resume")).token, "t1");
  next.end(1006);
  const third = await reconnected();
  assert.equal((await third.next("resume")).token, "t1");
});

test("what had no snapshot yet is subscribed to, not resumed", async () => {
  const { client, socket } = await live();
  client.subscribe({ all: true });
  await settle();
  await socket.next("subscribe");
  socket.end(1006);
  const next = await reconnected();
  const { id, subscriptions } = await next.next("resume");
  assert.deepEqual(subscriptions, [{ request_ids: ["r"], deltas: true }]);
  next.push({ id, type: "resumed", recovered: true, events: 0, gap: null, subscriptions: 1 });
  next.push({ type: "position", resume: "t2" });
  const command = await next.next("subscribe");
  assert.equal(command.all, true);
});

test("a refused resume is followed by single subscriptions, and the bad one is told", async () => {
  const { client, seen, socket } = await live();
  client.subscribe({ lanes: true });
  await settle();
  socket.push({ id: (await socket.next("subscribe")).id, type: "subscribed", subscriptions: 2 });
  socket.snapshot({ resume: "t2" });
  await settle();
  socket.end(1006);
  const next = await reconnected();
  const error = { type: "error", code: "forbidden", message: "no", field: "lanes" };
  next.push({ ...error, id: (await next.next("resume")).id });
  next.push({ ...error, id: (await next.next("subscribe")).id });
  next.push({ id: (await next.next("subscribe")).id, type: "subscribed", subscriptions: 1 });
  next.snapshot({ resume: "t3" });
  await settle();
  assert.equal(client.state.name, "live");
  assert.deepEqual(seen.find(({ type }) => type === "refused").subscription, { lanes: true });
});

test("one bad id is refused, and the others are followed", async () => {
  const { client, socket } = await live();
  const good = client.subscribe({ request_ids: ["a"] });
  const bad = client.subscribe({ request_ids: ["no such"] });
  await settle();
  const both = await socket.next("subscribe");
  assert.deepEqual(both.request_ids, ["a", "no such"]);
  socket.push({ id: both.id, type: "error", code: "invalid_command", message: "no", field: "request_ids.1" });
  const one = await socket.next("subscribe");
  assert.deepEqual(one.request_ids, ["a"]);
  socket.push({ id: one.id, type: "subscribed", subscriptions: 2 });
  socket.snapshot();
  await good;
  await assert.rejects(bad, { code: "invalid_command" });
});

test("a ticket is fetched for each connection, and refreshed before it expires", async () => {
  let count = 0;
  const { client } = make({ getTicket: async () => `ticket-${++count}` });
  client.connect();
  const expires = () => ({ scope: "user", user_id: "mira", tenant_id: "press", expires_at: new Date(Date.now() + 20_000).toISOString() });
  const socket = FakeSocket.last;
  socket.hello({ viewer: null });
  const shown = await socket.next("authenticate");
  assert.equal(shown.ticket, "ticket-1");
  socket.push({ id: shown.id, type: "authenticated", viewer: expires() });
  await settle();
  assert.deepEqual([client.state.name, client.viewer.user_id], ["live", "mira"]);
  mock.timers.tick(14_000);
  await settle();
  const sent = socket.sent.filter(({ type }) => type === "refresh");
  assert.equal(sent.length, 1);
  assert.equal(sent[0].ticket, "ticket-2");
});

test("bad tickets are not shown without end", async () => {
  const { client } = make({ getTicket: () => "bad" });
  client.connect();
  for (let tries = 1; tries <= 3; tries++) {
    FakeSocket.last.hello({ viewer: null });
    const { id } = await FakeSocket.last.next("authenticate");
    FakeSocket.last.push({ id, type: "error", code: "bad_ticket", message: "expired", field: null });
    await settle();
    assert.equal(client.state.name, tries < 3 ? "waiting" : "closed");
    mock.timers.tick(60_000);
  }
});

test("a bridge that cannot verify tickets at the moment is tried again, however often", async () => {
  const { client } = make({ getTicket: () => "t" });
  client.connect();
  for (let time = 0; time < 6; time++) {
    const socket = FakeSocket.last;
    socket.hello({ viewer: null });
    const { id } = await socket.next("authenticate");
    socket.push({ id, type: "error", code: "tickets_unavailable", message: "try again", field: "ticket" });
    await settle();
    assert.equal(client.state.name, "waiting");
    mock.timers.tick(60_000);
  }
});

test("a bridge that asks for a ticket is not asked without end where there is none", async () => {
  const { client } = make();
  client.connect();
  FakeSocket.last.hello({ viewer: null });
  await settle();
  assert.equal(client.state.name, "closed");
});

test("a connection that answers no ping is given up and made anew", async () => {
  const { client, socket } = await live();
  mock.timers.tick(25_000);
  assert.equal(socket.sent.at(-1).type, "ping");
  mock.timers.tick(10_000);
  assert.deepEqual([client.state.name, socket.isClosed], ["waiting", true]);
  assert.match(client.state.reason, /stopped answering/);
});

test("a bridge that does not open is tried again, later and later, with full jitter", async () => {
  const { client } = make();
  client.connect();
  const delays = [];
  for (let tries = 0; tries < 8; tries++) {
    mock.timers.tick(10_000);
    delays.push(client.state.retryAt - Date.now());
    mock.timers.tick(delays.at(-1));
  }
  assert.deepEqual(delays, [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000]);
  assert.equal(backoffMs(3, () => 0), 0);
  assert.equal(backoffMs(3, () => 0.5), 2_000);
});

test("close codes are obeyed", async () => {
  const back = [1001, 1006, 1011, 1013, 4500, 4501, 4599];
  const never = [1003, 1009, 4400, 4401, 4408, 4429, 4499];
  assert.deepEqual([back.every(mayReconnect), never.some(mayReconnect)], [true, false]);
  const { client, socket } = await live();
  socket.end(4429, "too many");
  assert.deepEqual([client.state.name, client.state.reason, client.state.code], ["closed", "too many", 4429]);
  mock.timers.tick(600_000);
  assert.equal(FakeSocket.made.length, 1);
});

test("an idle connection that was closed is opened again by the next subscription", async () => {
  const { client, socket } = await live();
  await Promise.all([client.unsubscribe({ request_ids: ["r"] }), socket.next("unsubscribe").then(({ id }) => socket.push({ id, type: "unsubscribed", subscriptions: 0 }))]);
  socket.end(4408);
  client.subscribe({ all: true });
  assert.equal(FakeSocket.made.length, 2);
});

test("frames of a socket that was given up are not listened to", async () => {
  const { seen, socket } = await live();
  socket.end(1006);
  const before = seen.length;
  socket.push({ type: "status", event: event("r", 9) });
  socket.end(4400);
  assert.equal(seen.length, before);
});

test("a listener that throws ends nothing", async () => {
  const { client, seen, socket } = await live();
  client.on("status", () => { throw new Error("mine"); });
  socket.push({ type: "status", event: event("r", 2) });
  assert.throws(() => mock.timers.tick(1), /mine/);
  socket.push({ type: "delta", ...delta(0, "a") });
  assert.equal(seen.at(-1).type, "delta");
});

test("pushes can be read one by one, of one request, and a reader that lags is told", async () => {
  const { client, socket } = await live();
  const mine = client.events({ requestId: "r", limit: 2 });
  socket.push({ type: "status", event: event("other", 1) });
  socket.push({ type: "status", event: event("r", 2) });
  assert.equal((await mine.next()).value.event.state_version, 2);
  for (let version = 3; version < 6; version++) socket.push({ type: "status", event: event("r", version) });
  assert.equal((await mine.next()).value.event.state_version, 3);
  assert.equal((await mine.next()).value.event.state_version, 4);
  await assert.rejects(mine.next(), RangeError);
  const ended = client.events();
  await ended.return();
  assert.equal((await ended.next()).done, true);
});

test("closing ends it, and rejects what waits", async () => {
  const { client, socket } = await live();
  const waiting = client.subscribe({ all: true });
  await settle();
  client.close();
  await assert.rejects(waiting, { code: "not_connected" });
  assert.deepEqual([client.state.name, socket.isClosed], ["idle", true]);
  mock.timers.tick(600_000);
  assert.equal(FakeSocket.made.length, 1);
});
