// The numbers of requests by state, which are buttons to show only these; and how much happens.

import { byId, element, setText } from "./dom.js";
import { STATES, count, stateOf } from "./format.js";

const RATE_SECONDS = 5;

export class Counters {
  #changes = Array(RATE_SECONDS).fill(0); // per second, newest last
  #second = 0;

  constructor({ onToggle }) {
    for (const [name, { label }] of Object.entries(STATES)) {
      const button = element(
        "button",
        { type: "button", "data-state": name, "aria-pressed": "false" },
        element("span", { class: "number" }),
        element("span", { class: "label" }, label),
      );
      button.addEventListener("click", () => onToggle(name));
      byId("counters").append(button);
    }
  }

  render(counts, chosen) {
    for (const button of byId("counters").children) {
      const number = counts[button.dataset.state];
      setText(button.firstChild, count(number));
      button.classList.toggle("none", number === 0);
      button.setAttribute("aria-pressed", String(chosen.has(button.dataset.state)));
    }
  }

  countChange() {
    this.#roll();
    this.#changes[RATE_SECONDS - 1] += 1;
  }

  renderRate() {
    this.#roll();
    const perSecond = this.#changes.reduce((sum, number) => sum + number, 0) / RATE_SECONDS;
    const shown = perSecond < 10 ? perSecond.toFixed(1) : count(Math.round(perSecond));
    setText(byId("rate"), perSecond > 0 ? `${shown} changes/s` : "");
  }

  /** For screen readers: the counters in one sentence, now and then. */
  renderSummary(counts, total) {
    const parts = Object.keys(STATES)
      .filter((name) => counts[name] > 0)
      .map((name) => `${counts[name]} ${stateOf(name).label.toLowerCase()}`);
    setText(byId("summary"), parts.length > 0 ? `${total} requests: ${parts.join(", ")}.` : "");
  }

  #roll() {
    const now = Math.floor(performance.now() / 1000);
    for (let left = Math.min(RATE_SECONDS, now - this.#second); left > 0; left--) {
      this.#changes.shift();
      this.#changes.push(0);
    }
    this.#second = now;
  }
}
