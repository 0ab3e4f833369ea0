// The lanes of the providers: numbers, breaker, and charts of the last minutes as this page saw them.

import { byId, element, setText } from "./dom.js";
import { count, duration, exactDuration, timeOfDay, words } from "./format.js";

const REMEMBERED_SECONDS = 600;
const REMEMBERED_POINTS = 1_200;
const CHART_HEIGHT = 110;
const BREAKERS = { closed: "Breaker closed", half_open: "Breaker half open", open: "Breaker open" };
const rate = (perSecond) => `${perSecond < 10 ? perSecond.toFixed(1) : count(Math.round(perSecond))}/s`;

/** A colour of the style sheet as a canvas takes it: `light-dark()` is resolved in a property of an element alone. */
function colour(name) {
  const probe = byId("lanes");
  probe.style.outlineColor = `var(${name})`;
  const { outlineColor } = getComputedStyle(probe);
  probe.style.outlineColor = "";
  return outlineColor;
}

const CHARTS = [
  { title: "Depth", series: [{ label: "waiting", tone: "--queued-line" }, { label: "in flight", tone: "--processing-line" }], show: (v) => count(Math.round(v)) },
  { title: "Per second", series: [{ label: "answered", tone: "--completed-line" }, { label: "failed", tone: "--failed-line" }], show: (v) => (v < 10 ? String(+v.toFixed(1)) : count(Math.round(v))) },
  { title: "Latency", series: [{ label: "p50", tone: "--processing-line" }, { label: "p95", tone: "--retry-line" }], show: (v) => exactDuration(v).replace(" ", "\u202f") },
];

class LaneCard {
  #breaker = element("span", { class: "breaker" });
  #workers = element("p", { class: "sub" });
  #numbers = element("dl", { class: "numbers" });
  #boxes = CHARTS.map(({ title, series }) =>
    element(
      "figure",
      {},
      element("figcaption", {}, title, ...series.map(({ label }, at) => element("span", { class: `key key-${at}` }, label))),
      element("div", { class: "chart", "aria-hidden": "true" }),
    ),
  );
  #charts = null;
  #times = [];
  #values = CHARTS.map(() => [[], []]);
  #changes = []; // when the breaker changed: seconds
  lane = null;

  constructor(provider) {
    const title = element("h3", {}, provider);
    this.node = element("section", { class: "lane", "aria-label": `Lane of ${provider}` });
    this.node.append(element("div", { class: "lane-top" }, title, this.#breaker), this.#workers, this.#numbers);
    this.node.append(element("div", { class: "charts" }, ...this.#boxes));
    this.#boxes.forEach((box, at) => (box.dataset.chart = String(at)));
  }

  /** Takes the newest numbers. Gives whether the breaker changed. */
  take(lane) {
    const before = this.lane?.breaker.state;
    this.lane = lane;
    const at = Date.parse(lane.reported_at) / 1000;
    const isChange = before !== undefined && before !== lane.breaker.state;
    if (isChange) this.#changes.push(at);
    if (this.#times.length === 0 || at > this.#times.at(-1)) {
      this.#times.push(at);
      const points = [
        [lane.backlog, lane.in_flight],
        [lane.answered_per_second, lane.failed_per_second],
        [lane.call_ms_p50 ?? null, lane.call_ms_p95 ?? null],
      ];
      points.forEach((pair, chart) => pair.forEach((value, line) => this.#values[chart][line].push(value)));
    }
    while (this.#times[0] < at - REMEMBERED_SECONDS || this.#times.length > REMEMBERED_POINTS) {
      this.#times.shift();
      for (const lines of this.#values) for (const line of lines) line.shift();
    }
    this.#changes = this.#changes.filter((change) => change >= this.#times[0]);
    this.#paintNumbers();
    return isChange;
  }

  #paintNumbers() {
    const { lane } = this;
    this.#breaker.dataset.breaker = lane.breaker.state;
    setText(this.#breaker, BREAKERS[lane.breaker.state] ?? lane.breaker.state);
    const workers = lane.workers === 0 ? "No worker was heard of lately" : `${count(lane.workers)} worker${lane.workers === 1 ? "" : "s"}`;
    setText(this.#workers, lane.shared_state_away ? `${workers}. They cannot reach Redis.` : workers);
    const wait = lane.about_wait_ms === undefined || lane.about_wait_ms === null;
    const facts = [
      ["Depth", count(lane.backlog)],
      ["In flight", `${count(lane.in_flight)} of ${count(lane.concurrency)}`],
      ["Answered", rate(lane.answered_per_second)],
      ["Failed", rate(lane.failed_per_second)],
      ["Latency p50, p95", [lane.call_ms_p50, lane.call_ms_p95].map((v) => (v === undefined || v === null ? "—" : exactDuration(v))).join(", ")],
      ["Wait for a new one", wait ? "unknown" : `about ${duration(lane.about_wait_ms)}`],
    ];
    if (this.#numbers.childElementCount === 0) {
      this.#numbers.append(...facts.map(([name]) => element("div", {}, element("dt", {}, name), element("dd"))));
    }
    facts.forEach(([, value], at) => setText(this.#numbers.children[at].lastChild, value));
  }

  /** Draws, where it can be seen. The charts are made anew when the colours changed. */
  draw({ afresh }) {
    if (afresh && this.#charts) {
      for (const chart of this.#charts) chart.destroy();
      this.#charts = null;
    }
    this.#charts ??= this.#boxes.map((box, at) => this.#newChart(box.lastChild, CHARTS[at], at));
    this.#charts.forEach((chart, at) => {
      const width = Math.floor(this.#boxes[at].clientWidth);
      if (width > 0 && width !== chart.width) chart.setSize({ width, height: CHART_HEIGHT });
      chart.setData([this.#times, ...this.#values[at]]);
    });
  }

  #newChart(box, { series, show }, at) {
    const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const options = {
      width: Math.max(120, Math.floor(box.clientWidth)),
      height: CHART_HEIGHT,
      padding: [8, 6, 0, 0],
      cursor: { show: false },
      legend: { show: false },
      scales: { y: { range: (_chart, _low, high) => [0, Math.max(1, high ?? 1) * 1.1] } },
      axes: [
        { ...axis, size: 22, space: 70, values: (_chart, splits) => splits.map((second) => timeOfDay(second * 1000)) },
        { ...axis, size: 46, space: 28, values: (_chart, splits) => splits.map(show) },
      ],
      series: [{}, ...series.map(({ tone }, line) => ({ stroke: colour(tone), width: 1.75, dash: line === 1 ? [5, 3] : undefined, points: { show: false } }))],
      hooks: { draw: [(chart) => this.#drawChanges(chart)] },
    };
    return new globalThis.uPlot(options, [this.#times, ...this.#values[at]], box);
  }

  #drawChanges(chart) {
    const { ctx, bbox } = chart;
    ctx.save();
    ctx.strokeStyle = colour("--failed-line");
    ctx.setLineDash([2, 3]);
    for (const change of this.#changes) {
      const x = Math.round(chart.valToPos(change, "x", true)) + 0.5;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }
}

export class Lanes {
  #cards = new Map();
  #recoloured = true;

  /** `onBreaker(text)` is told of each change of a breaker, in a line. */
  constructor({ onBreaker }) {
    this.onBreaker = onBreaker;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.#recoloured = true;
      this.render({ visible: !byId("view-lanes").hidden });
    });
  }

  take(lane) {
    let card = this.#cards.get(lane.provider);
    if (!card) {
      card = new LaneCard(lane.provider);
      this.#cards.set(lane.provider, card);
      const sorted = [...this.#cards.keys()].sort();
      const after = this.#cards.get(sorted[sorted.indexOf(lane.provider) + 1]);
      byId("lanes").insertBefore(card.node, after?.node ?? null);
    }
    if (card.take(lane)) this.onBreaker(breakerLine(lane));
  }

  get open() {
    return [...this.#cards.values()].filter(({ lane }) => lane.breaker.state !== "closed").length;
  }

  render({ visible }) {
    const open = this.open;
    const badge = byId("lanes-badge");
    badge.hidden = open === 0;
    setText(badge, open === 0 ? "" : `${open} open`);
    byId("lanes-empty").hidden = this.#cards.size > 0;
    if (!visible) return;
    for (const card of this.#cards.values()) card.draw({ afresh: this.#recoloured });
    this.#recoloured = false;
  }
}

/** A breaker's change as a line. */
export function breakerLine({ provider, breaker, reported_at: reportedAt }) {
  const at = timeOfDay(Date.parse(breaker.since ?? reportedAt));
  const why = breaker.reason ? `: ${words(breaker.reason)}` : "";
  if (breaker.state === "closed") return `${provider} is called again, since ${at}.`;
  if (breaker.state === "half_open") return `${provider} is being tried again, since ${at}.`;
  const retry = breaker.retry_at ? `. Tried again at ${timeOfDay(Date.parse(breaker.retry_at))}` : "";
  return `${provider} is not called, since ${at}${why}${retry}.`;
}
