// The page: wires the client of the live view to the table, the counters, the panel of one request, lanes and letters.

import { SluiceClient } from "/client/sluice-client.js";
import { Counters } from "./counters.js";
import { Detail } from "./detail.js";
import { byId, setText } from "./dom.js";
import { count } from "./format.js";
import { Lanes } from "./lanes.js";
import { Letters } from "./letters.js";
import { Requests } from "./requests.js";
import { Shortcuts } from "./shortcuts.js";
import { StatusBar } from "./status_bar.js";
import { RequestTable } from "./table.js";
import { VIEWS, askedFor, readView, writeView } from "./view_state.js";

const REMEMBERED = 20_000;
const DEAD_LETTERS = 500;
const SHORTEST_RENDER_GAP_MS = 100;
const LONGEST_RENDER_GAP_MS = 1_000;
const TICK_EVERY_MS = 250;
const SUMMARY_EVERY_MS = 10_000;
const NO_TICKET = 4401;
const TICKET_EXPIRED = 4501;

const asked = askedFor(location.search);
const view = readView(location.hash);
let ticket = null;
let hasExpired = false;
let hasSubscribed = false;

const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`;
const client = new SluiceClient(url, { getTicket: takeTicket, rememberedRequests: REMEMBERED });
const bridgeNow = () => Date.now() + client.clockOffsetMs;
const requests = new Requests(REMEMBERED);
const statusBar = new StatusBar(client);
const shortcuts = new Shortcuts();
const counters = new Counters({ onToggle: toggleState });
const detail = new Detail({ onClose: () => select(null) });
const table = new RequestTable(byId("requests"), { onSelect: (id) => select(id === detail.id ? null : id), now: bridgeNow });
const lanes = new Lanes({ onBreaker: tell, now: bridgeNow });
const letters = new Letters({ openOnly: view.openOnly, onOpen: openLetter, onChoice: chooseLetters });

// --- what comes

client.on("viewer", ({ viewer }) => {
  if (hasSubscribed) return;
  hasSubscribed = true;
  followRequests(viewer);
  client.subscribe({ lanes: true }).catch(() => {});
  client.subscribe({ dead_letters: true, limit: DEAD_LETTERS }).catch(() => letters.refuse());
});
client.on("status", ({ event, snapshot }) => {
  if (requests.merge(event, snapshot ? 0 : Date.now())) counters.countChange();
});
client.on("result", ({ result }) => requests.takeResult(result));
client.on("queue", (push) => requests.takeQueue(push));
client.on("replaced", ({ request_ids: ids }) => requests.keepOnly(ids));
client.on("gap", () => tell("Some of what happened meanwhile cannot be had any more. What you see is how things stand now."));
for (const type of ["text", "delta", "void"]) client.on(type, (push) => detail.onText(push));
client.on("lane_history", ({ history }) => lanes.takeHistory(history));
client.on("lane", ({ lane }) => lanes.take(lane));
client.on("dead_letter", ({ dead_letter: entry }) => letters.take(entry));
client.on("dead_letter_mark", (push) => letters.takeMark(push));
client.on("state", ({ state }) => {
  hasExpired ||= state.code === TICKET_EXPIRED;
  if (state.code === TICKET_EXPIRED || (state.name === "closed" && client.viewer === null)) ticket = null;
  byId("ticket").hidden = !(state.name === "closed" && asksForTicket(state));
  renderConnection();
});
client.on("*", scheduleRender);

function followRequests(viewer) {
  const refused = (error) => {
    if (error.code === "not_connected") return;
    statusBar.refusal = `The bridge refuses what the address asks for: ${error.message}.`;
    renderConnection();
  };
  if (asked.ids.length > 0) client.subscribe({ request_ids: asked.ids }).catch(refused);
  if (asked.correlationId) client.subscribe({ correlation_id: asked.correlationId }).catch(refused);
  if (asked.ids.length > 0 || asked.correlationId) return;
  if (viewer.scope === "operator") client.subscribe({ all: true }).catch(refused);
  else if (viewer.scope === "tenant") client.subscribe({ tenant_id: viewer.tenant_id }).catch(refused);
  else if (viewer.scope === "user") client.subscribe({ user_id: viewer.user_id }).catch(refused);
  else statusBar.refusal = "This bridge shows requests by id only. Open this page as /?request_id=… with the id of yours.";
}

// --- tickets: held in memory alone, and asked for where the bridge wants one

function takeTicket() {
  if (ticket === null) {
    const why = hasExpired ? "your ticket has expired" : "it asks for a ticket";
    throw Object.assign(new Error(why), { isFinal: true });
  }
  return ticket;
}

const asksForTicket = (state) => state.code === undefined || state.code === NO_TICKET;

byId("ticket").addEventListener("submit", (submit) => {
  submit.preventDefault();
  ticket = byId("ticket-text").value.trim();
  byId("ticket-text").value = "";
  client.connect();
});

// --- what is shown

let renderTimer = null;
let lastRenderAt = 0;
let renderGapMs = SHORTEST_RENDER_GAP_MS;

/** However many events arrive, a slow machine spends at most a quarter of its time on showing them. */
function scheduleRender() {
  if (renderTimer !== null) return;
  const wait = Math.max(0, lastRenderAt + renderGapMs - performance.now());
  renderTimer = setTimeout(() => requestAnimationFrame(render), wait);
}

function render() {
  renderTimer = null;
  const startedAt = (lastRenderAt = performance.now());
  setTimeout(() => {
    // After layout and paint, which cost more than all of the script.
    const costMs = performance.now() - startedAt;
    renderGapMs = Math.min(LONGEST_RENDER_GAP_MS, Math.max(SHORTEST_RENDER_GAP_MS, 4 * costMs));
  });
  if (view.view === "requests") renderRequests();
  lanes.render({ visible: view.view === "lanes" });
  letters.render({ visible: view.view === "letters" });
  renderConnection();
}

function renderRequests() {
  const entries = requests.find(view);
  table.render(entries, detail.id, bridgeNow());
  detail.render(requests.get(detail.id), bridgeNow());
  counters.render(requests.counts, view.states);
  const isFiltered = view.text.trim() !== "" || view.states.size > 0;
  const total = requests.size === 1 ? "1 request" : `${count(requests.size)} requests`;
  setText(byId("shown"), isFiltered ? `${count(entries.length)} of ${total}` : total);
  byId("empty").hidden = entries.length > 0;
  setText(byId("empty"), emptyText(isFiltered));
}

function renderConnection() {
  statusBar.render({ hasContent: requests.size > 0, liveRequests: requests.live });
}

function emptyText(isFiltered) {
  if (isFiltered && requests.size > 0) return "No request matches the filter.";
  if (statusBar.refusal) return "";
  if (!client.isLive) return "Not connected yet.";
  if (asked.ids.length > 0) return `Nothing is known yet of ${asked.ids.slice(0, 5).join(", ")}. It appears here as it moves.`;
  return "No requests yet. They appear here as they are sent.";
}

function tick() {
  statusBar.tick();
  counters.renderRate();
  if (!client.isLive) return; // time does not go on for what is not known any more
  if (view.view === "lanes") lanes.tick();
  if (view.view !== "requests") return;
  table.tick(bridgeNow());
  detail.render(requests.get(detail.id), bridgeNow());
}

/** A line for everybody, until the next one or until it is dismissed. */
function tell(text) {
  byId("notice").hidden = false;
  setText(byId("notice-text"), text);
}

// --- what people do

function show(name) {
  view.view = name;
  for (const one of VIEWS) byId(`view-${one}`).hidden = one !== name;
  for (const button of byId("views").children) {
    if (button.dataset.view === name) button.setAttribute("aria-current", "page");
    else button.removeAttribute("aria-current");
  }
  rememberView();
  render();
}

/** What has the focus in each view that was not chosen by its button. */
const VIEW_STARTS = { requests: "requests", lanes: "lanes-title", letters: "letters-title" };

function openLetter(id) {
  show("requests");
  select(id);
  detail.focus();
}

function chooseLetters(openOnly) {
  view.openOnly = openOnly;
  rememberView();
}

function toggleState(name) {
  if (!view.states.delete(name)) view.states.add(name);
  rememberView();
  scheduleRender();
}

function select(id) {
  const before = detail.id;
  if (before === id) return;
  if (before !== null) unfollow(before);
  if (id === null) {
    detail.close();
    table.focusRow(before);
  } else {
    detail.open(id);
    follow(id);
  }
  rememberView();
  render();
  if (id !== null && matchMedia("(max-width: 900px)").matches) detail.focus();
}

function follow(id) {
  client.subscribe({ request_ids: [id], deltas: true }).catch(() => {}); // an id that no request can have
}

function unfollow(id) {
  if (asked.ids.includes(id)) client.subscribe({ request_ids: [id] }).catch(() => {});
  else client.unsubscribe({ request_ids: [id] });
}

function rememberView() {
  writeView({ ...view, open: detail.id });
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target === byId("filter");
  if (event.target.matches("input") && !typing) return;
  if (!typing && shortcuts.silence(event)) return;
  const number = VIEWS[Number(event.key) - 1];
  if (event.key === "Escape") {
    if (typing && view.text) return;
    if (typing) byId("filter").blur();
    else if (detail.id !== null) select(null);
  } else if (typing) {
    if (event.key === "ArrowDown") table.moveFocus(1);
    else return;
  } else if (number) {
    if (number === view.view) return;
    show(number);
    byId(VIEW_STARTS[number]).focus({ preventScroll: true });
  } else if (view.view !== "requests") return;
  else if (event.key === "/") byId("filter").focus();
  else if (!moveByKey(event.key)) return;
  event.preventDefault();
}

const STEPS = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };

/** j and k always move by rows; arrows and the like where a row has the focus, for else they scroll. */
function moveByKey(key) {
  const step = { j: 1, k: -1 }[key] ?? (table.hasFocus ? STEPS[key] : undefined);
  if (step === undefined) return false;
  table.moveFocus(step);
  return true;
}

byId("filter").addEventListener("input", (event) => {
  view.text = event.target.value;
  rememberView();
  scheduleRender();
});
byId("views").addEventListener("click", ({ target }) => {
  const button = target.closest("button");
  if (button) show(button.dataset.view);
});
byId("notice-close").addEventListener("click", () => (byId("notice").hidden = true));
document.addEventListener("keydown", onKey);

byId("filter").value = view.text;
const open = view.open ?? (asked.ids.length === 1 ? asked.ids[0] : null);
if (open !== null) {
  detail.open(open);
  follow(open);
}
show(view.view);
setInterval(tick, TICK_EVERY_MS);
setInterval(() => counters.renderSummary(requests.counts, requests.size), SUMMARY_EVERY_MS);
client.connect();
