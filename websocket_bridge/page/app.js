// The page: wires the connection to the table, the counters and the panel of one request.

import { BridgeConnection } from "./connection.js";
import { Detail } from "./detail.js";
import { STATES, count, stateOf, timeOfDay } from "./format.js";
import { Requests } from "./requests.js";
import { RequestTable } from "./table.js";

const REMEMBERED = 20_000;
const ROWS_SHOWN = 500;
const SHORTEST_RENDER_GAP_MS = 100;
const LONGEST_RENDER_GAP_MS = 1_000;
const TICK_EVERY_MS = 250;
const SUMMARY_EVERY_MS = 10_000;
const RATE_SECONDS = 5;

const byId = (id) => document.getElementById(id);
const onlyIds = new URLSearchParams(location.search)
  .getAll("request_id")
  .flatMap((value) => value.split(","))
  .map((id) => id.trim())
  .filter(Boolean);

const view = { text: "", states: new Set() };
let state = { name: "connecting" };
let feed = "starting";
let lastLiveAt = null;
let clockOffsetMs = 0;
let refusal = "";
let recentChanges = [];

const bridgeNow = () => Date.now() + clockOffsetMs;
const requests = new Requests(REMEMBERED);
const detail = new Detail({ onClose: () => select(null) });
const table = new RequestTable(byId("rows"), { onSelect: (id) => select(id === detail.id ? null : id) });
const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`;
const connection = new BridgeConnection(url, { onState, onPush, onOpen: subscribe });

// --- the connection

async function subscribe() {
  refusal = "";
  if (onlyIds.length > 0) {
    await connection.request({ type: "subscribe", request_ids: onlyIds });
  } else {
    await connection.request({ type: "subscribe", all: true }).catch((error) => {
      if (error.code !== "all_refused") throw error;
      refusal = "This bridge shows requests by id only. Open this page as /?request_id=… with the id of yours.";
    });
  }
  if (detail.id !== null) await follow(detail.id).catch(ignoreRefusal);
}

/** An id in the address that no request can have is no reason to give up on all the others. */
function ignoreRefusal(error) {
  if (error.code === "not_connected") throw error;
}

function follow(id) {
  return connection.request({ type: "subscribe", request_ids: [id], deltas: true });
}

function unfollow(id) {
  const stays = onlyIds.includes(id);
  const command = stays ? { type: "subscribe", request_ids: [id] } : { type: "unsubscribe", request_ids: [id] };
  connection.request(command).catch(() => {});
}

function onState(next) {
  if (state.name === "live" && next.name !== "live") lastLiveAt = Date.now();
  state = next;
  renderConnection();
  scheduleRender();
}

function onPush(push) {
  switch (push.type) {
    case "hello":
      clockOffsetMs = Date.parse(push.time) - Date.now();
      feed = push.feed;
      break;
    case "feed":
      feed = push.feed;
      renderConnection();
      break;
    case "snapshot":
      for (const event of push.requests) requests.merge(event, 0);
      for (const run of push.texts) detail.onText(run);
      break;
    case "status":
      if (requests.merge(push.event, Date.now())) recentChanges.push(Date.now());
      break;
    case "delta":
      detail.onDelta(push);
      break;
  }
  scheduleRender();
}

const FEEDS = {
  live: "Live",
  catching_up: "Live, the bridge is catching up",
  starting: "Connected, the bridge is starting",
  away: "Connected, but Kafka is away",
};

function renderConnection() {
  const live = state.name === "live";
  const pill = byId("connection");
  pill.dataset.state = live && feed !== "live" ? "degraded" : state.name;
  pill.title = state.reason ?? "";
  byId("connection-text").textContent = {
    connecting: "Connecting",
    live: FEEDS[feed] ?? feed,
    waiting: navigator.onLine ? "Reconnecting" : "Offline, reconnecting",
    closed: "Closed",
  }[state.name];
  byId("retry").hidden = !["waiting", "closed"].includes(state.name);
  renderCountdown();
  renderBanner(live);
}

function renderBanner(live) {
  let text = live ? refusal : "";
  if (live && feed === "away") text = "The bridge gets nothing from Kafka at the moment. What you see is the last it knew.";
  if (state.name === "closed") text = `The bridge ended the connection: ${state.reason}.`;
  else if (state.name === "waiting" && lastLiveAt) text = `Not connected. What you see is as of ${timeOfDay(lastLiveAt)}.`;
  const banner = byId("banner");
  if (banner.textContent !== text) banner.textContent = text;
  banner.hidden = !text;
  document.body.classList.toggle("stale", !live && requests.size > 0);
}

function renderCountdown() {
  const left = state.name === "waiting" ? Math.max(0, Math.ceil((state.retryAt - Date.now()) / 1000)) : null;
  byId("connection-countdown").textContent = left === null ? "" : `in ${left} s`;
}

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
  const { entries, matching } = requests.find({ ...view, limit: ROWS_SHOWN });
  table.render(entries, detail.id, bridgeNow());
  detail.render(requests.get(detail.id), bridgeNow());
  renderCounters();
  const isFiltered = view.text.trim() !== "" || view.states.size > 0;
  const total = requests.size === 1 ? "1 request" : `${count(requests.size)} requests`;
  byId("shown").textContent = isFiltered ? `${count(matching)} of ${total}` : total;
  const hidden = matching - entries.length;
  byId("more").hidden = hidden === 0;
  byId("more").textContent = `The newest ${count(entries.length)} are shown. The filter finds the other ${count(hidden)} as well.`;
  byId("empty").hidden = matching > 0;
  byId("empty").textContent = emptyText(isFiltered);
}

function emptyText(isFiltered) {
  if (isFiltered && requests.size > 0) return "No request matches the filter.";
  if (refusal) return "";
  if (state.name !== "live") return "Not connected yet.";
  if (onlyIds.length > 0) return `Nothing is known yet of ${onlyIds.slice(0, 5).join(", ")}. It appears here as it moves.`;
  return "No requests yet. They appear here as they are sent.";
}

function makeCounters() {
  for (const [name, { label }] of Object.entries(STATES)) {
    const button = document.createElement("button");
    const number = document.createElement("span");
    const text = document.createElement("span");
    number.className = "number";
    text.className = "label";
    text.textContent = label;
    button.type = "button";
    button.dataset.state = name;
    button.setAttribute("aria-pressed", "false");
    button.append(number, text);
    button.addEventListener("click", () => toggleState(name));
    byId("counters").append(button);
  }
}

function renderCounters() {
  for (const button of byId("counters").children) {
    const number = requests.counts[button.dataset.state];
    const text = count(number);
    if (button.firstChild.textContent !== text) button.firstChild.textContent = text;
    button.classList.toggle("none", number === 0);
    button.setAttribute("aria-pressed", String(view.states.has(button.dataset.state)));
  }
}

function renderRate() {
  const since = Date.now() - RATE_SECONDS * 1000;
  recentChanges = recentChanges.filter((at) => at > since);
  const perSecond = recentChanges.length / RATE_SECONDS;
  byId("rate").textContent = perSecond > 0 ? `${perSecond < 10 ? perSecond.toFixed(1) : Math.round(perSecond)} changes/s` : "";
}

/** For screen readers: the counters in one sentence, now and then. */
function renderSummary() {
  const parts = Object.keys(STATES)
    .filter((name) => requests.counts[name] > 0)
    .map((name) => `${requests.counts[name]} ${stateOf(name).label.toLowerCase()}`);
  const text = parts.length > 0 ? `${requests.size} requests: ${parts.join(", ")}.` : "";
  if (byId("summary").textContent !== text) byId("summary").textContent = text;
}

function tick() {
  renderCountdown();
  renderRate();
  if (state.name !== "live") return; // time does not go on for what is not known any more
  table.tick(bridgeNow());
  detail.render(requests.get(detail.id), bridgeNow());
}

// --- what people do

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
    follow(id).catch(() => {});
  }
  rememberView();
  render();
  if (id !== null && matchMedia("(max-width: 900px)").matches) detail.focus();
}

/** The filter and the open request go into the address, so that a reload keeps them. */
function rememberView() {
  const kept = new URLSearchParams();
  if (detail.id !== null) kept.set("open", detail.id);
  if (view.text) kept.set("filter", view.text);
  if (view.states.size > 0) kept.set("states", [...view.states].join(","));
  history.replaceState(null, "", `${location.pathname}${location.search}${kept.size > 0 ? `#${kept}` : ""}`);
}

function recallView() {
  const kept = new URLSearchParams(location.hash.slice(1));
  view.text = byId("filter").value = kept.get("filter") ?? "";
  view.states = new Set((kept.get("states") ?? "").split(",").filter((name) => Object.hasOwn(STATES, name)));
  const open = kept.get("open") ?? (onlyIds.length === 1 ? onlyIds[0] : null);
  if (open !== null) detail.open(open);
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target === byId("filter");
  if (event.key === "Escape") {
    if (typing && view.text) return;
    if (typing) byId("filter").blur();
    else if (detail.id !== null) select(null);
  } else if (typing) {
    if (event.key === "ArrowDown") table.moveFocus(0);
    else return;
  } else if (event.key === "/") byId("filter").focus();
  else if (event.key === "j") table.moveFocus(1);
  else if (event.key === "k") table.moveFocus(-1);
  else return;
  event.preventDefault();
}

byId("filter").addEventListener("input", (event) => {
  view.text = event.target.value;
  rememberView();
  scheduleRender();
});
byId("retry").addEventListener("click", () => connection.retryNow());
document.addEventListener("keydown", onKey);

makeCounters();
recallView();
setInterval(tick, TICK_EVERY_MS);
setInterval(renderSummary, SUMMARY_EVERY_MS);
connection.retryNow();
render();
