// The table: one row per request, changed in place, texts only ever set as text.

import { duration, elapsedMs, exactDuration, fullTime, note, stateOf, timeOfDay } from "./format.js";

const FLASHES_AT_ONCE = 10; // beyond it nobody follows them, and each costs a repaint per frame
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setBoth(node, text) {
  setText(node, text);
  if (node.title !== text) node.title = text;
}

class Row {
  #entry;
  #event = null;
  #selected = null;
  #state = element("span", { class: "state" });
  #button = element("button", { type: "button", class: "id" });
  #who = element("span", { class: "sub" });
  #provider = element("span", { class: "provider" });
  #model = element("span", { class: "sub" });
  #attempt = element("td", { role: "cell", class: "c-attempt" });
  #elapsed = element("td", { role: "cell", class: "c-elapsed" });
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
      this.#note,
      this.#submitted,
    );
    setBoth(this.#button, entry.id);
    setText(this.#submitted, timeOfDay(entry.submittedMs));
    this.#submitted.title = fullTime(entry.submittedMs);
  }

  /** Paints what is new. Gives whether that is a change that happened while the page was watching. */
  update(isSelected, nowMs) {
    const { event } = this.#entry;
    const isNew = event !== this.#event;
    if (isNew) {
      this.#event = event;
      this.#paint(event);
      this.tick(nowMs, true);
    }
    if (isSelected !== this.#selected) {
      this.#selected = isSelected;
      this.node.classList.toggle("selected", isSelected);
      this.#button.setAttribute("aria-expanded", String(isSelected));
      this.#button.setAttribute("aria-controls", "detail");
    }
    return isNew && this.#entry.changedAt > 0;
  }

  /** What moves with time alone. */
  tick(nowMs, force = false) {
    const event = this.#event;
    const isLive = stateOf(event.state).live;
    if (!isLive && !force) return;
    const elapsed = elapsedMs(event, nowMs);
    setText(this.#elapsed, isLive ? duration(elapsed) : exactDuration(elapsed));
    setBoth(this.#note, note(event, nowMs));
  }

  focus() {
    this.#button.focus();
    this.node.scrollIntoView({ block: "nearest" });
  }

  get isFocused() {
    return document.activeElement === this.#button;
  }

  #paint(event) {
    const { label } = stateOf(event.state);
    setText(this.#state, label);
    this.#state.dataset.state = event.state;
    setBoth(this.#who, [event.kind, event.user_id, event.correlation_id].filter(Boolean).join(" · "));
    setBoth(this.#provider, event.provider ?? "—");
    setBoth(this.#model, event.model ?? "");
    setText(this.#attempt, event.attempt > 0 ? String(event.attempt) : "—");
  }

  flash() {
    this.node.animate([{ backgroundColor: "var(--flash)" }, {}], { duration: 900, easing: "ease-out" });
  }
}

export class RequestTable {
  #body;
  #onSelect;
  #rows = new Map();
  #order = [];

  constructor(body, { onSelect }) {
    this.#body = body;
    this.#onSelect = onSelect;
  }

  /** Shows exactly these entries, in this order. Rows that stay are moved, not made anew. */
  render(entries, selectedId, nowMs) {
    const wanted = new Set(entries.map((entry) => entry.id));
    for (const [id, row] of this.#rows) {
      if (wanted.has(id)) continue;
      row.node.remove();
      this.#rows.delete(id);
    }
    const changed = [];
    let next = this.#body.firstChild;
    for (const entry of entries) {
      let row = this.#rows.get(entry.id);
      if (!row) {
        row = new Row(entry, this.#onSelect);
        this.#rows.set(entry.id, row);
      }
      if (row.update(entry.id === selectedId, nowMs)) changed.push(row);
      if (row.node === next) next = next.nextSibling;
      else this.#body.insertBefore(row.node, next);
    }
    this.#order = entries.map((entry) => entry.id);
    if (changed.length <= FLASHES_AT_ONCE && !reducedMotion.matches) changed.forEach((row) => row.flash());
  }

  tick(nowMs) {
    for (const row of this.#rows.values()) row.tick(nowMs);
  }

  focusRow(id) {
    this.#rows.get(id)?.focus();
  }

  /** Moves the focus by rows; from nowhere it goes to the first. */
  moveFocus(step) {
    const at = this.#order.findIndex((id) => this.#rows.get(id)?.isFocused);
    const to = at < 0 ? 0 : Math.min(this.#order.length - 1, Math.max(0, at + step));
    this.focusRow(this.#order[to]);
  }
}
