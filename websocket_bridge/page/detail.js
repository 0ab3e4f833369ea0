// The panel of one request: its facts, where its time went, and its answer as it arrives.

import { elapsedMs, exactDuration, duration, fullTime, note, stateOf, words } from "./format.js";

const byId = (id) => document.getElementById(id);

const TIMINGS = [
  ["queued_ms", "Queued"],
  ["waiting_ms", "Waiting"],
  ["provider_ms", "Provider"],
];

/** The text of the newest attempt, as far as it came without a hole. No DOM. */
export class Stream {
  attempt = 0;
  firstSeq = 0;
  nextSeq = 0;
  text = "";
  superseded = 0;

  /** What the bridge knew of the answer: replaces what there was. */
  replace({ attempt, seq, last_seq: lastSeq, text }) {
    Object.assign(this, { attempt, firstSeq: seq, nextSeq: lastSeq + 1, text });
  }

  /** The next piece. Superseded and repeated ones change nothing; after a hole the text begins anew. */
  append(delta) {
    if (delta.attempt < this.attempt) return;
    if (delta.attempt > this.attempt) {
      if (this.text) this.superseded = this.attempt;
      this.replace(delta);
    } else if (delta.seq === this.nextSeq) {
      this.text += delta.text;
      this.nextSeq = delta.last_seq + 1;
    } else if (delta.seq > this.nextSeq) {
      this.replace(delta);
    }
  }

  get note() {
    if (!this.text) return "";
    const notes = [];
    if (this.superseded > 0) notes.push(`Attempt ${this.attempt} began anew: the text of attempt ${this.superseded} is void.`);
    if (this.firstSeq > 0) notes.push("The beginning is missing here.");
    return notes.join(" ");
  }
}

export class Detail {
  #panel = byId("detail");
  #stream = new Stream();
  #painted = { event: null, text: null };
  id = null;

  constructor({ onClose }) {
    byId("detail-close").addEventListener("click", onClose);
  }

  open(id) {
    this.id = id;
    this.#stream = new Stream();
    this.#painted = { event: null, text: null };
    this.#panel.hidden = false;
    byId("detail-title").textContent = id;
    byId("detail-title").title = id;
  }

  close() {
    this.id = null;
    this.#panel.hidden = true;
  }

  focus() {
    byId("detail-title").focus();
  }

  onText(run) {
    if (run.request_id === this.id) this.#stream.replace(run);
  }

  onDelta(delta) {
    if (delta.request_id === this.id) this.#stream.append(delta);
  }

  render(entry, nowMs) {
    if (this.id === null) return;
    const event = entry?.event ?? null;
    this.#paintState(event, nowMs);
    if (event && event !== this.#painted.event) {
      this.#paintFacts(event);
      this.#paintTimings(event.timings);
    }
    if (this.#stream.text !== this.#painted.text || event !== this.#painted.event) this.#paintStream(event);
    this.#painted = { event, text: this.#stream.text };
  }

  #paintState(event, nowMs) {
    const line = byId("detail-state");
    if (!event) {
      line.textContent = "Nothing is known of this request yet.";
      return;
    }
    const { label, live } = stateOf(event.state);
    const elapsed = elapsedMs(event, nowMs);
    const badge = line.querySelector(".state") ?? line.appendChild(document.createElement("span"));
    badge.className = "state";
    badge.dataset.state = event.state;
    badge.textContent = label;
    const rest = ` ${live ? `for ${duration(elapsed)} so far` : `after ${exactDuration(elapsed)}`}`;
    line.replaceChildren(badge, rest);
    const message = note(event, nowMs);
    byId("detail-message").textContent = message;
    byId("detail-message").hidden = !message;
  }

  #paintFacts(event) {
    const facts = [
      ["Provider", event.provider],
      ["Model", event.model],
      ["Attempt", event.attempt > 0 ? event.attempt : undefined],
      ["Kind", event.kind],
      ["User", event.user_id],
      ["Tenant", event.tenant_id === "default" ? undefined : event.tenant_id],
      ["Correlation", event.correlation_id],
      ["Reason", event.reason && words(event.reason)],
      ["Calls possibly billed", event.possibly_billed_calls || undefined],
      ["Submitted", fullTime(Date.parse(event.submitted_at))],
      ["Last change", fullTime(Date.parse(event.occurred_at))],
      ["State version", event.state_version],
    ];
    const shown = facts.filter(([, value]) => value !== undefined && value !== "");
    byId("facts").replaceChildren(
      ...shown.flatMap(([name, value]) => {
        const term = document.createElement("dt");
        const definition = document.createElement("dd");
        term.textContent = name;
        definition.textContent = String(value);
        return [term, definition];
      }),
    );
  }

  #paintTimings(timings) {
    const bar = byId("timings");
    const legend = byId("legend");
    bar.hidden = legend.hidden = !(timings?.total_ms > 0);
    if (bar.hidden) return;
    const parts = TIMINGS.map(([field, label]) => ({ field, label, ms: timings[field] ?? 0 }));
    const rest = timings.total_ms - parts.reduce((sum, { ms }) => sum + ms, 0);
    if (rest > 0) parts.push({ field: "other", label: "Other", ms: rest });
    bar.replaceChildren(
      ...parts.map(({ field, ms }) => {
        const part = document.createElement("span");
        part.dataset.part = field;
        part.style.flexGrow = String(ms);
        return part;
      }),
    );
    bar.setAttribute("aria-label", parts.map(({ label, ms }) => `${label} ${exactDuration(ms)}`).join(", "));
    legend.replaceChildren(
      ...parts.map(({ field, label, ms }) => {
        const item = document.createElement("li");
        item.dataset.part = field;
        item.textContent = `${label} ${exactDuration(ms)}`;
        return item;
      }),
    );
  }

  #paintStream(event) {
    const box = byId("stream");
    const wasAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
    const { text } = this.#stream;
    box.hidden = !text;
    const shown = box.firstChild;
    if (shown && text.startsWith(shown.data)) shown.appendData(text.slice(shown.data.length));
    else box.textContent = text;
    if (wasAtEnd) box.scrollTop = box.scrollHeight;
    const isLive = !event || stateOf(event.state).live;
    box.classList.toggle("growing", isLive);
    byId("stream-note").textContent = text ? this.#stream.note : nothingYet(isLive);
    byId("stream-note").hidden = Boolean(text) && !this.#stream.note;
  }
}

function nothingYet(isLive) {
  return isLive
    ? "Nothing yet. Requests sent with stream=true show their answer here while it is written."
    : "No text came by. Only requests sent with stream=true show it, and only for a while.";
}
