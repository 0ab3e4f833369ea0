// The table of requests: only the rows that can be seen are in the document, however many there are.

import { element, setBoth, setText } from "./dom.js";
import { costOf, duration, elapsedMs, exactDuration, fullTime, note, stateOf, timeOfDay } from "./format.js";

const ROWS_BEYOND = 6; // above and below what is seen, so that a quick scroll meets rows
const FLASHES_AT_ONCE = 10; // beyond it nobody follows them, and each costs a repaint per frame
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

class Row {
  #entry;
  #revision = -1;
  #selected = null;
  #state = element("span", { class: "state" });
  #button = element("button", { type: "button", class: "id", tabindex: "-1", "aria-controls": "detail" });
  #who = element("span", { class: "sub" });
  #provider = element("span", { class: "provider" });
  #model = element("span", { class: "sub" });
  #attempt = element("td", { role: "cell", class: "c-attempt" });
  #elapsed = element("td", { role: "cell", class: "c-elapsed" });
  #cost = element("td", { role: "cell", class: "c-cost" });
  #note = element("td", { role: "cell", class: "c-note" });
  #submitted = element("td", { role: "cell", class: "c-submitted" });

  constructor(entry, onSelect) {
    this.#entry = entry;
    this.#button.addEventListener("click", () => onSelect(entry.id));
    this.node = element(
      "tr",
      { role: "row" },
      element("td", { role: "cell", class: "c-state" }, this.#state),
      element("th", { role: "rowheader", scope: "row", class: "c-request" }, this.#button, this.#who),
      element("td", { role: "cell", class: "c-provider" }, this.#provider, this.#model),
      this.#attempt,
      this.#elapsed,
      this.#cost,
      this.#note,
      this.#submitted,
    );
    setBoth(this.#button, entry.id);
    setText(this.#submitted, timeOfDay(entry.submittedMs));
    this.#submitted.title = fullTime(entry.submittedMs);
  }

  get isOf() {
    return this.#entry;
  }

  get button() {
    return this.#button;
  }

  /** Paints what is new. Gives whether that is a change that happened while the page was watching. */
  update({ index, isSelected, isActive, nowMs }) {
    const { event, revision } = this.#entry;
    const isNew = revision !== this.#revision;
    if (isNew) {
      this.#revision = revision;
      this.#paint(event);
      this.tick(nowMs, true);
    }
    this.node.setAttribute("aria-rowindex", String(index + 2));
    this.#button.tabIndex = isActive ? 0 : -1;
    if (isSelected !== this.#selected) {
      this.#selected = isSelected;
      this.node.classList.toggle("selected", isSelected);
      this.#button.setAttribute("aria-expanded", String(isSelected));
    }
    return isNew && this.#entry.changedAt > 0;
  }

  /** What moves with time alone. */
  tick(nowMs, force = false) {
    const isLive = stateOf(this.#entry.event.state).live;
    if (!isLive && !force) return;
    const elapsed = elapsedMs(this.#entry, nowMs);
    setText(this.#elapsed, isLive ? duration(elapsed) : exactDuration(elapsed));
    setBoth(this.#note, note(this.#entry, nowMs));
  }

  #paint(event) {
    setText(this.#state, stateOf(event.state).label);
    this.#state.dataset.state = event.state;
    setBoth(this.#who, [event.kind, event.user_id, event.correlation_id].filter(Boolean).join(" · "));
    setBoth(this.#provider, event.provider ?? "—");
    setBoth(this.#model, event.model ?? "");
    setText(this.#attempt, event.attempt > 0 ? String(event.attempt) : "—");
    const cost = costOf(this.#entry);
    setText(this.#cost, cost || "—");
    this.#cost.classList.toggle("none", !cost);
  }

  flash() {
    this.node.animate([{ backgroundColor: "var(--flash)" }, {}], { duration: 900, easing: "ease-out" });
  }
}

/** Stands for the rows that are not in the document, so that the page is as long as with them. */
function spacer() {
  return element("tbody", { class: "spacer", role: "presentation", "aria-hidden": "true" }, element("tr", { role: "presentation" }, element("td", { role: "presentation" })));
}

function setHeight(body, pixels) {
  body.rows[0].cells[0].style.height = `${pixels}px`;
}

export class RequestTable {
  #table;
  #body;
  #onSelect;
  #now;
  #rows = new Map();
  #entries = [];
  #selectedId = null;
  #activeId = null;
  #above = spacer();
  #below = spacer();

  constructor(table, { onSelect, now }) {
    this.#table = table;
    this.#body = table.tBodies[0];
    this.#body.before(this.#above);
    this.#body.after(this.#below);
    this.#onSelect = onSelect;
    this.#now = now;
    let asked = false;
    const repaint = () => {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => {
        asked = false;
        this.#paint(now());
      });
    };
    addEventListener("scroll", repaint, { passive: true });
    addEventListener("resize", repaint, { passive: true });
    this.#body.addEventListener("focusin", ({ target }) => {
      const row = [...this.#rows.values()].find(({ button }) => button === target);
      if (row) this.#activeId = row.isOf.id;
    });
  }

  /** Shows these entries, in this order. What the reader looks at stays where it is. */
  render(entries, selectedId, nowMs) {
    const anchor = this.#anchor();
    this.#entries = entries;
    this.#selectedId = selectedId;
    this.#table.setAttribute("aria-rowcount", String(entries.length + 1));
    const changed = this.#paint(nowMs);
    if (anchor) this.#holdTo(anchor, nowMs);
    if (changed.length <= FLASHES_AT_ONCE && !reducedMotion.matches) changed.forEach((row) => row.flash());
  }

  tick(nowMs) {
    for (const row of this.#rows.values()) row.tick(nowMs);
  }

  /** The row of a request, or the table where it has none. */
  focusRow(id) {
    const index = this.#entries.findIndex((entry) => entry.id === id);
    if (index >= 0) this.#focus(index);
    else this.#table.focus({ preventScroll: true });
  }

  get hasFocus() {
    return this.#body.contains(document.activeElement);
  }

  /** Moves the focus by rows; from nowhere it goes to the first. */
  moveFocus(step) {
    if (this.#entries.length === 0) return;
    const at = this.#entries.findIndex((entry) => entry.id === this.#activeId);
    const from = at < 0 ? (step > 0 ? -1 : 0) : at;
    this.#focus(Math.min(this.#entries.length - 1, Math.max(0, from + step)));
  }

  get #rowHeight() {
    return parseFloat(getComputedStyle(this.#table).getPropertyValue("--row")) || 46;
  }

  #focus(index) {
    this.#activeId = this.#entries[index].id;
    const height = this.#rowHeight;
    const top = this.#above.getBoundingClientRect().top + index * height;
    const [ceiling, floor] = [130, innerHeight - 24];
    if (top < ceiling) scrollBy(0, top - ceiling);
    else if (top + height > floor) scrollBy(0, top + height - floor);
    this.#paint(this.#now());
    this.#rows.get(this.#activeId)?.button.focus({ preventScroll: true });
  }

  /** The first row in sight, once the reader has scrolled: new rows above it are not to push it away. */
  #anchor() {
    const top = this.#above.getBoundingClientRect().top;
    const height = this.#rowHeight;
    if (top > 0 || this.#entries.length === 0) return null;
    const index = Math.min(this.#entries.length - 1, Math.ceil(-top / height));
    return { entry: this.#entries[index], index, height };
  }

  #holdTo({ entry, index, height }, nowMs) {
    const now = this.#entries.indexOf(entry);
    if (now < 0 || now === index) return;
    scrollBy(0, (now - index) * height);
    this.#paint(nowMs);
  }

  #paint(nowMs) {
    const height = this.#rowHeight;
    const total = this.#entries.length;
    const top = this.#above.getBoundingClientRect().top;
    const first = Math.max(0, Math.min(total, Math.floor(-top / height)) - ROWS_BEYOND);
    const last = Math.min(total, Math.max(first, Math.ceil((innerHeight - top) / height)) + ROWS_BEYOND);
    const visible = this.#entries.slice(first, last);
    const wanted = new Set(visible);
    for (const [id, row] of this.#rows) {
      if (wanted.has(row.isOf)) continue;
      row.node.remove();
      this.#rows.delete(id);
    }
    setHeight(this.#above, first * height);
    setHeight(this.#below, (total - last) * height);
    const isActiveHere = visible.some((entry) => entry.id === this.#activeId);
    const changed = [];
    let next = this.#body.firstChild;
    visible.forEach((entry, at) => {
      let row = this.#rows.get(entry.id);
      if (!row) this.#rows.set(entry.id, (row = new Row(entry, this.#onSelect)));
      const isActive = isActiveHere ? entry.id === this.#activeId : at === 0;
      const isSelected = entry.id === this.#selectedId;
      if (row.update({ index: first + at, isSelected, isActive, nowMs })) changed.push(row);
      if (row.node === next) next = next.nextSibling;
      else this.#body.insertBefore(row.node, next);
    });
    return changed;
  }
}
