// The charts of one lane: depth, rate and latency, with a line where its breaker changed.

import { byId, element, setText } from "./dom.js";
import { count, exactDuration, timeOfDay } from "./format.js";

const HEIGHT = 110;
const SHORTEST_SPAN_SECONDS = 60;
const number = (value) => (value < 10 ? String(+value.toFixed(1)) : count(Math.round(value)));

const CHARTS = [
  { title: "Depth", series: [{ label: "in the lane", tone: "--queued-line" }, { label: "in flight", tone: "--processing-line" }], show: (v) => count(Math.round(v)) },
  { title: "Per second", series: [{ label: "answered", tone: "--completed-line" }, { label: "failed", tone: "--failed-line" }], show: number },
  { title: "Latency", series: [{ label: "p50", tone: "--processing-line" }, { label: "p95", tone: "--retry-line" }], show: (v) => exactDuration(v).replace(" ", "\u202f") },
];

/** A colour of the style sheet as a canvas takes it: `light-dark()` is resolved in a property of an element alone. */
function colour(value) {
  const probe = byId("lanes");
  probe.style.outlineColor = value;
  const { outlineColor } = getComputedStyle(probe);
  probe.style.outlineColor = "";
  return outlineColor;
}

export class LaneCharts {
  #figures = CHARTS.map(({ title, series }, at) => {
    const keys = series.map(({ label }, line) => element("span", { class: `key key-${line}` }, element("span", {}, label), element("b")));
    const when = element("span", { class: "when" });
    const chart = element("div", { class: "chart", "aria-hidden": "true" });
    const node = element("figure", { "data-chart": String(at) }, element("figcaption", {}, title, ...keys, when), chart);
    return { node, keys, when, chart };
  });
  #charts = null;
  #changes = [];
  node = element("div", { class: "charts" }, ...this.#figures.map(({ node }) => node));

  /** `columns`: the times in seconds, and two lines for each chart. `afresh`: the colours have changed. */
  draw({ columns: [times, ...lines], changes, afresh }) {
    this.#changes = changes;
    if (afresh && this.#charts) {
      for (const chart of this.#charts) chart.destroy();
      this.#charts = null;
    }
    const dataOf = (at) => [times, lines[2 * at], lines[2 * at + 1]];
    this.#charts ??= this.#figures.map((figure, at) => this.#newChart(figure, CHARTS[at], dataOf(at)));
    this.#charts.forEach((chart, at) => {
      const width = Math.floor(this.#figures[at].node.clientWidth);
      if (width > 0 && width !== chart.width) chart.setSize({ width, height: HEIGHT });
      chart.setData(dataOf(at));
    });
  }

  #newChart(figure, { series, show }, data) {
    const axis = { stroke: colour("var(--faint)"), grid: { stroke: colour("var(--line)"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const lineOf = ({ tone }, line) => ({
      stroke: colour(`var(${tone})`),
      fill: line === 0 ? colour(`color-mix(in srgb, var(${tone}) 12%, transparent)`) : undefined,
      width: 1.75,
      dash: line === 1 ? [5, 3] : undefined,
      points: { show: false },
    });
    const options = {
      width: Math.max(120, Math.floor(figure.node.clientWidth)),
      height: HEIGHT,
      padding: [8, 6, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 5 } },
      scales: {
        x: { range: (_chart, low, high) => [Math.min(low, high - SHORTEST_SPAN_SECONDS), high] },
        y: { range: (_chart, _low, high) => [0, Math.max(1, high ?? 1) * 1.1] },
      },
      axes: [
        { ...axis, size: 22, space: 70, values: (_chart, splits) => splits.map((second) => timeOfDay(second * 1000)) },
        { ...axis, size: 46, space: 28, values: (_chart, splits) => splits.map(show) },
      ],
      series: [{}, ...series.map(lineOf)],
      hooks: { draw: [(chart) => this.#drawChanges(chart)], setCursor: [(chart) => read(chart, figure, show)] },
    };
    return new globalThis.uPlot(options, data, figure.chart);
  }

  #drawChanges(chart) {
    const { ctx, bbox } = chart;
    ctx.save();
    ctx.strokeStyle = colour("var(--failed-line)");
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

/** The values under the pointer, beside the names of the lines. */
function read(chart, { keys, when }, show) {
  const at = chart.cursor.idx;
  const isOver = at !== null && at !== undefined && chart.cursor.left >= 0;
  setText(when, isOver ? timeOfDay(chart.data[0][at] * 1000) : "");
  keys.forEach((key, line) => {
    const value = isOver ? chart.data[line + 1][at] : null;
    setText(key.lastChild, isOver ? ` ${value === null ? "—" : show(value)}` : "");
  });
}
