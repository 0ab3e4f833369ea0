// Dead letters, newest first, by their headers.

import { byId, element, setText } from "./dom.js";
import { count, fullTime, words } from "./format.js";

const REMEMBERED = 500;

export class Letters {
  #byPlace = new Map();
  #isNew = false;

  constructor({ onOpen }) {
    this.onOpen = onOpen;
  }

  /** A letter comes again with each snapshot: it is known by its place in the topic. */
  take(entry) {
    const place = `${entry.partition}-${entry.offset}`;
    if (this.#byPlace.has(place)) return;
    this.#byPlace.set(place, entry);
    if (this.#byPlace.size > REMEMBERED) {
      const [oldest] = [...this.#byPlace].sort(([, a], [, b]) => Date.parse(a.at) - Date.parse(b.at))[0];
      this.#byPlace.delete(oldest);
    }
    this.#isNew = true;
  }

  refuse() {
    setText(byId("letters-empty"), "Dead letters are shown to operators only.");
  }

  render({ visible }) {
    setText(byId("letters-badge"), count(this.#byPlace.size));
    byId("letters-badge").hidden = this.#byPlace.size === 0;
    byId("letters-empty").hidden = this.#byPlace.size > 0;
    if (!visible || !this.#isNew) return;
    this.#isNew = false;
    const newestFirst = [...this.#byPlace.values()].sort((a, b) => Date.parse(b.at) - Date.parse(a.at));
    byId("letters").replaceChildren(...newestFirst.map((entry) => this.#item(entry)));
  }

  #item({ partition, offset, at, letter }) {
    const id = element("button", { type: "button", class: "id" }, letter.request_id ?? "(no request id)");
    id.disabled = !letter.request_id;
    id.addEventListener("click", () => this.onOpen(letter.request_id));
    const from = [letter.provider, letter.model, letter.tenant_id === "default" ? "" : letter.tenant_id];
    const facts = [
      ...from,
      letter.attempt > 0 ? `attempt ${letter.attempt}` : "",
      letter.redrive_count > 0 ? `redriven ${letter.redrive_count === 1 ? "once" : `${letter.redrive_count} times`}` : "",
      `letter ${partition}-${offset}`,
      fullTime(Date.parse(at)),
    ];
    return element(
      "li",
      {},
      element("p", { class: "letter-top" }, id, element("span", { class: "state", "data-state": "failed" }, words(letter.category ?? "unknown"))),
      element("p", { class: "letter-message" }, letter.message ?? ""),
      element("p", { class: "sub" }, facts.filter(Boolean).join(" · ")),
    );
  }
}
