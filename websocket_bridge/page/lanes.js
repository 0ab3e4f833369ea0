// The lanes of the providers: their numbers, breakers, and charts of the last minutes.

import { byId, element, setText } from "./dom.js";
import { count, duration, exactDuration, timeOfDay, words } from "./format.js";
import { LaneCharts } from "./lane_charts.js";

const REMEMBERED_SECONDS = 600;
const STEP_SECONDS = 2;
const BREAKERS = { closed: "Breaker closed", half_open: "Breaker half open", open: "Breaker open" };
const rate = (perSecond) => `${perSecond < 10 ? perSecond.toFixed(1) : count(Math.round(perSecond))}/s`;
const isKnown = (value) => value !== undefined && value !== null;

/** The points of a chart, oldest first: what the bridge remembered, and what this page saw since. */
class Points {
  #rows = [];

  /** Of several within two seconds the last one stays, for many workers report; a change of the breaker always. */
  add(row) {
    const last = this.#rows.at(-1);
    const before = this.#rows.at(-2);
    if (last && row.at <= last.at) return;
    if (before && last.at - before.at < STEP_SECONDS && last.breaker === before.breaker) this.#rows.pop();
    this.#rows.push(row);
    while (this.#rows[0].at < row.at - REMEMBERED_SECONDS) this.#rows.shift();
  }

  /** What the bridge remembers, and this page has not seen: also that of before a lost connection. */
  merge(rows) {
    const byTime = new Map([...rows, ...this.#rows].map((row) => [row.at, row]));
    this.#rows = [...byTime.values()].sort((a, b) => a.at - b.at);
  }

  /** By column, as charts take it: times first. */
  get columns() {
    return [this.#rows.map(({ at }) => at), ...[0, 1, 2, 3, 4, 5].map((field) => this.#rows.map(({ values }) => values[field]))];
  }

  /** When the breaker changed: seconds. */
  get changes() {
    return this.#rows.filter((row, at) => at > 0 && row.breaker !== this.#rows[at - 1].breaker).map(({ at }) => at);
  }
}

const rowOf = (lane) => ({
  at: Date.parse(lane.reported_at) / 1000,
  breaker: lane.breaker.state,
  values: [
    lane.backlog, lane.in_flight, lane.answered_per_second, lane.failed_per_second,
    lane.call_ms_p50 ?? null, lane.call_ms_p95 ?? null,
  ],
});

const rowsOf = (history) =>
  history.at.map((at, n) => ({
    at,
    breaker: history.breaker[n],
    values: [
      history.backlog[n], history.in_flight[n], history.answered_per_second[n], history.failed_per_second[n],
      history.call_ms_p50[n], history.call_ms_p95[n],
    ],
  }));

class LaneCard {
  #breaker = element("span", { class: "breaker" });
  #said = element("p", { class: "sub" });
  #numbers = element("dl", { class: "numbers" });
  #charts = new LaneCharts();
  #points = new Points();
  lane = null;

  constructor(provider) {
    this.node = element("section", { class: "lane", "aria-label": `Lane of ${provider}` });
    this.node.append(element("div", { class: "lane-top" }, element("h3", {}, provider), this.#breaker), this.#said);
    this.node.append(this.#numbers, this.#charts.node);
  }

  /** Takes the newest numbers. Gives whether the breaker changed. */
  take(lane) {
    const before = this.lane?.breaker.state;
    this.lane = lane;
    this.#points.add(rowOf(lane));
    this.#paintNumbers();
    return before !== undefined && before !== lane.breaker.state;
  }

  takeHistory(history) {
    this.#points.merge(rowsOf(history));
  }

  /** What moves with time alone. */
  tick(nowMs) {
    if (this.lane) setText(this.#said, saidOf(this.lane, nowMs));
  }

  /** Draws, where it can be seen. */
  draw({ afresh, nowMs }) {
    this.tick(nowMs);
    this.#charts.draw({ columns: this.#points.columns, changes: this.#points.changes, afresh });
  }

  #paintNumbers() {
    const { lane } = this;
    this.#breaker.dataset.breaker = lane.breaker.state;
    setText(this.#breaker, BREAKERS[lane.breaker.state] ?? lane.breaker.state);
    const facts = [
      ["Depth", count(lane.backlog)],
      ["In flight", `${count(lane.in_flight)} of ${count(lane.concurrency)}`],
      ["Answered", rate(lane.answered_per_second)],
      ["Failed", rate(lane.failed_per_second)],
      ["Latency p50, p95", [lane.call_ms_p50, lane.call_ms_p95].map((ms) => (isKnown(ms) ? exactDuration(ms) : "—")).join(", ")],
      ["Wait for a new one", waitOf(lane)],
    ];
    if (this.#numbers.childElementCount === 0) {
      this.#numbers.append(...facts.map(([name]) => element("div", {}, element("dt", {}, name), element("dd"))));
    }
    facts.forEach(([, value], at) => setText(this.#numbers.children[at].lastChild, value));
  }
}

function waitOf({ about_wait_ms: waitMs, workers, breaker }) {
  if (isKnown(waitMs)) return waitMs < 100 ? "none" : `about ${duration(waitMs)}`;
  if (workers > 0 && breaker.state === "open") return "until it is called again";
  return "unknown";
}

/** Who works on it, and what there is to say of its breaker. */
function saidOf({ workers, shared_state_away: isAway, breaker }, nowMs) {
  const said = [workers === 0 ? "No worker was heard of lately" : `${count(workers)} worker${workers === 1 ? "" : "s"}`];
  if (isAway) said.push("they cannot reach Redis");
  const since = breaker.since ? ` since ${timeOfDay(Date.parse(breaker.since))}` : "";
  if (breaker.state === "open") {
    said.push(`not called${since}`, breaker.reason ? words(breaker.reason) : "", tryOf(breaker, nowMs));
  } else if (breaker.state === "half_open") said.push(`being tried again${since}`);
  return said.filter(Boolean).join(" · ");
}

function tryOf({ retry_at: retryAt }, nowMs) {
  if (!retryAt) return "";
  const leftMs = Date.parse(retryAt) - nowMs;
  return leftMs > 0 ? `tried again in ${duration(leftMs)}` : "the next call tries it again";
}

export class Lanes {
  #cards = new Map();
  #recoloured = true;
  #now;

  /** `onBreaker(text)` is told of each change of a breaker, in a line. `now` is the bridge's clock. */
  constructor({ onBreaker, now }) {
    this.onBreaker = onBreaker;
    this.#now = now;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.#recoloured = true;
      this.render({ visible: !byId("view-lanes").hidden });
    });
  }

  take(lane) {
    if (this.#card(lane.provider).take(lane)) this.onBreaker(breakerLine(lane));
  }

  takeHistory(history) {
    this.#card(history.provider).takeHistory(history);
  }

  get open() {
    return [...this.#cards.values()].filter(({ lane }) => lane && lane.breaker.state !== "closed").length;
  }

  render({ visible }) {
    const open = this.open;
    const badge = byId("lanes-badge");
    badge.hidden = open === 0;
    setText(badge, open === 0 ? "" : `${open} open`);
    byId("lanes-empty").hidden = this.#cards.size > 0;
    if (!visible) return;
    for (const card of this.#cards.values()) card.draw({ afresh: this.#recoloured, nowMs: this.#now() });
    this.#recoloured = false;
  }

  tick() {
    for (const card of this.#cards.values()) card.tick(this.#now());
  }

  #card(provider) {
    let card = this.#cards.get(provider);
    if (!card) {
      card = new LaneCard(provider);
      this.#cards.set(provider, card);
      const sorted = [...this.#cards.keys()].sort();
      const after = this.#cards.get(sorted[sorted.indexOf(provider) + 1]);
      byId("lanes").insertBefore(card.node, after?.node ?? null);
    }
    return card;
  }
}

/** A breaker's change as a line. */
export function breakerLine({ provider, breaker, reported_at: reportedAt }) {
  const at = timeOfDay(Date.parse(breaker.since ?? reportedAt));
  const why = breaker.reason ? `: ${words(breaker.reason)}` : "";
  if (breaker.state === "closed") return `${provider} is called again, since ${at}.`;
  if (breaker.state === "half_open") return `${provider} is being tried again, since ${at}.`;
  const retry = breaker.retry_at ? `. It is tried again at ${timeOfDay(Date.parse(breaker.retry_at))}` : "";
  return `${provider} is not called, since ${at}${why}${retry}.`;
}
