// Dead letters, newest first, by their headers; and what was done with each.

import { byId, element, setText } from "./dom.js";
import { count, fullTime, words } from "./format.js";

const REMEMBERED = 500;
const MARKS = { redriven: "Redriven", purged: "Purged" };

/** One letter in the list. Its node stays the same, so that a focus on it does. */
class Letter {
  #mark = element("span", { class: "state", "data-state": "queued" });
  #done = element("p", { class: "sub" });

  constructor(entry, onOpen) {
    this.entry = entry;
    this.atMs = Date.parse(entry.at);
    const { letter } = entry;
    const id = element("button", { type: "button", class: "id" }, letter.request_id ?? "(no request id)");
    id.disabled = !letter.request_id;
    id.addEventListener("click", () => onOpen(letter.request_id));
    const why = element("span", { class: "state", "data-state": "failed" }, words(letter.category ?? "unknown"));
    this.node = element(
      "li",
      {},
      element("p", { class: "letter-top" }, id, why, this.#mark),
      element("p", { class: "letter-message" }, letter.message ?? ""),
      element("p", { class: "sub" }, factsOf(entry)),
      this.#done,
    );
    this.mark(entry.mark);
  }

  get isOpen() {
    return this.entry.mark === undefined;
  }

  /** Takes what was done with it, unless something newer is known. Gives whether that changes anything. */
  mark(mark) {
    const isNews = mark !== undefined && (this.isOpen || Date.parse(mark.at) > Date.parse(this.entry.mark.at));
    if (isNews) this.entry = { ...this.entry, mark };
    this.#paint(this.entry.mark);
    return isNews;
  }

  #paint(mark) {
    this.node.classList.toggle("handled", mark !== undefined);
    this.#mark.hidden = this.#done.hidden = mark === undefined;
    if (mark === undefined) return;
    this.#mark.dataset.state = mark.action === "redriven" ? "retry_scheduled" : "cancelled";
    setText(this.#mark, MARKS[mark.action] ?? "Handled");
    setText(this.#done, [MARKS[mark.action] ?? "Handled", fullTime(Date.parse(mark.at)), mark.by && `by ${mark.by}`].filter(Boolean).join(" · "));
  }
}

function factsOf({ partition, offset, at, letter }) {
  const facts = [
    letter.provider,
    letter.model,
    letter.tenant_id === "default" ? "" : letter.tenant_id,
    letter.attempt > 0 ? `attempt ${letter.attempt}` : "",
    letter.redrive_count > 0 ? `redriven ${letter.redrive_count === 1 ? "once" : `${letter.redrive_count} times`} before` : "",
    `letter ${partition}-${offset}`,
    fullTime(Date.parse(at)),
  ];
  return facts.filter(Boolean).join(" · ");
}

export class Letters {
  #byPlace = new Map();
  #isNew = false;
  #isForbidden = false;
  #openOnly = byId("letters-open");

  /** `onOpen(id)`: a letter's request is asked for. `onChoice(openOnly)`: whether handled ones are left out. */
  constructor({ openOnly, onOpen, onChoice }) {
    this.onOpen = onOpen;
    this.#choose(openOnly);
    this.#openOnly.addEventListener("click", () => {
      this.#choose(!this.showsOpenOnly);
      onChoice(this.showsOpenOnly);
      this.render({ visible: true });
    });
  }

  get showsOpenOnly() {
    return this.#openOnly.getAttribute("aria-pressed") === "true";
  }

  #choose(openOnly) {
    this.#openOnly.setAttribute("aria-pressed", String(openOnly));
    this.#isNew = true;
  }

  /** A letter comes again with each snapshot: it is known by its place in the topic. */
  take(entry) {
    const place = `${entry.partition}-${entry.offset}`;
    const known = this.#byPlace.get(place);
    if (known && Date.parse(entry.at) <= known.atMs) {
      this.#isNew = known.mark(entry.mark) || this.#isNew;
      return;
    }
    known?.node.remove(); // the topic was made anew
    this.#byPlace.set(place, new Letter(entry, this.onOpen));
    if (this.#byPlace.size > REMEMBERED) this.#forgetOldest();
    this.#isNew = true;
  }

  /** What was done with a letter. One that is not known here has its mark with it when it comes. */
  takeMark({ partition, offset, mark }) {
    if (this.#byPlace.get(`${partition}-${offset}`)?.mark(mark)) this.#isNew = true;
  }

  refuse() {
    this.#isForbidden = true;
  }

  render({ visible }) {
    const letters = [...this.#byPlace.values()];
    const open = letters.filter(({ isOpen }) => isOpen);
    setText(byId("letters-badge"), count(open.length));
    byId("letters-badge").hidden = open.length === 0;
    const shown = this.showsOpenOnly ? open : letters;
    byId("letters-empty").hidden = shown.length > 0;
    setText(byId("letters-empty"), this.#emptyText(letters.length));
    byId("letters-toolbar").hidden = letters.length === 0;
    setText(byId("letters-shown"), `${count(open.length)} open of ${count(letters.length)}`);
    if (!visible || !this.#isNew) return;
    this.#isNew = false;
    this.#place(shown.sort((a, b) => b.atMs - a.atMs));
  }

  #emptyText(total) {
    if (this.#isForbidden) return "Dead letters are shown to operators only.";
    return total > 0 ? "No dead letter is open." : "No dead letters. What cannot pass appears here.";
  }

  /** Moves only what is not in its place already. */
  #place(letters) {
    const list = byId("letters");
    const wanted = new Set(letters.map(({ node }) => node));
    for (const node of [...list.children]) if (!wanted.has(node)) node.remove();
    letters.forEach(({ node }, at) => {
      if (list.children[at] !== node) list.insertBefore(node, list.children[at] ?? null);
    });
  }

  #forgetOldest() {
    let oldest = null;
    for (const [place, letter] of this.#byPlace) if (!oldest || letter.atMs < oldest[1].atMs) oldest = [place, letter];
    this.#byPlace.delete(oldest[0]);
    oldest[1].node.remove();
  }
}
