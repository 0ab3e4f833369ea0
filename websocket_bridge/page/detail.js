// The panel of one request: its timeline, where its time went, its facts, and its answer as it arrives.

import { Transcript } from "/client/sluice-client.js";
import { byId, element, setText } from "./dom.js";
import { cost, count, duration, elapsedMs, exactDuration, fullTime, note, stateOf, words } from "./format.js";
import { stepsOf } from "./timeline.js";

const TIMINGS = [
  ["queued_ms", "Queued"],
  ["waiting_ms", "Waiting"],
  ["provider_ms", "Provider"],
  ["delayed_ms", "Between attempts"],
];

export class Detail {
  #panel = byId("detail");
  #transcript = new Transcript();
  #painted = {};
  id = null;

  constructor({ onClose }) {
    byId("detail-close").addEventListener("click", onClose);
  }

  open(id) {
    this.id = id;
    this.#transcript = new Transcript();
    this.#painted = {};
    this.#panel.hidden = false;
    byId("detail-title").textContent = id;
    byId("detail-title").title = id;
    for (const name of ["voided", "timeline", "facts", "detail-change"]) byId(name).replaceChildren();
  }

  close() {
    this.id = null;
    this.#panel.hidden = true;
  }

  focus() {
    byId("detail-title").focus();
  }

  /** A push of type text, delta or void. */
  onText(push) {
    if (push.request_id === this.id) this.#transcript.apply(push);
  }

  render(entry, nowMs) {
    if (this.id === null) return;
    this.#paintState(entry, nowMs);
    const isNew = entry?.revision !== this.#painted.revision;
    if (entry && (isNew || stateOf(entry.event.state).live)) this.#paintTimeline(stepsOf(entry, nowMs), nowMs);
    if (entry && isNew) {
      this.#paintFacts(entry);
      this.#paintTimings(entry.result?.timings ?? entry.event.timings);
    }
    const { text, attempt } = this.#transcript;
    if (isNew || text !== this.#painted.text || attempt !== this.#painted.attempt) this.#paintStream(entry);
    this.#painted = { revision: entry?.revision, text, attempt, state: entry?.event.state };
  }

  #paintState(entry, nowMs) {
    const line = byId("detail-state");
    if (!entry) {
      setText(line, "Nothing is known of this request yet.");
      byId("detail-message").hidden = true;
      for (const name of ["timings", "legend"]) byId(name).hidden = true;
      return;
    }
    const { state } = entry.event;
    const { label, live } = stateOf(state);
    if (line.childElementCount === 0) line.replaceChildren(element("span", { class: "state" }), element("span"));
    const [badge, rest] = line.children;
    badge.dataset.state = state;
    setText(badge, label);
    const elapsed = elapsedMs(entry, nowMs);
    setText(rest, live ? `for ${duration(elapsed)} so far` : `after ${exactDuration(elapsed)}`);
    if (this.#painted.state && this.#painted.state !== state) setText(byId("detail-change"), `Now ${label.toLowerCase()}.`);
    const message = note(entry, nowMs);
    setText(byId("detail-message"), message);
    byId("detail-message").hidden = !message;
  }

  #paintTimeline(steps, nowMs) {
    const list = byId("timeline");
    const startMs = steps[0].startMs;
    const span = Math.max(1, ...steps.map((step) => (step.endMs ?? nowMs) - startMs));
    while (list.childElementCount > steps.length) list.lastChild.remove();
    while (list.childElementCount < steps.length) list.append(newStep());
    steps.forEach((step, at) => {
      const { item, label, took, track, bar, detail } = list.children[at].parts;
      item.dataset.step = step.kind;
      item.dataset.outcome = step.outcome ?? "";
      const isEnd = step.startMs === step.endMs && !["queued", "waiting"].includes(step.kind);
      const length = Math.max(0, (step.endMs ?? nowMs) - step.startMs);
      setText(label, step.label);
      setText(took, isEnd ? "" : step.endMs === null ? duration(length) : exactDuration(length));
      setText(detail, step.detail);
      detail.hidden = !step.detail;
      track.hidden = isEnd;
      bar.style.marginLeft = `${Math.min(99, (100 * (step.startMs - startMs)) / span)}%`;
      bar.style.width = `${Math.min(100, (100 * length) / span)}%`;
    });
  }

  #paintFacts({ event, result }) {
    const usage = result?.usage;
    const timings = result?.timings ?? event.timings;
    const isOver = !stateOf(event.state).live;
    const facts = [
      ["Provider", result?.provider ?? event.provider],
      ["Model", result?.model ?? event.model],
      ["Cost", cost(result?.cost_usd) ?? (isOver && result?.attempts.length > 0 ? "unknown" : undefined)],
      ["Provider's time", timings && `${exactDuration(timings.provider_ms)} of ${exactDuration(timings.total_ms)}`],
      ["Overhead", timings && exactDuration(timings.overhead_ms)],
      ["Tokens", usage && `${count(usage.input_tokens)} in (${count(usage.cached_input_tokens)} cached), ${count(usage.output_tokens)} out`],
      ["Ended by", result?.finish_reason && words(result.finish_reason)],
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
      ...shown.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, String(value))]),
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
        const part = element("span", { "data-part": field });
        part.style.flexGrow = String(ms);
        return part;
      }),
    );
    bar.setAttribute("aria-label", parts.map(({ label, ms }) => `${label} ${exactDuration(ms)}`).join(", "));
    legend.replaceChildren(
      ...parts.map(({ field, label, ms }) => element("li", { "data-part": field }, `${label} ${exactDuration(ms)}`)),
    );
  }

  #paintStream(entry) {
    const { text, voided, hasHole, attempt } = this.#transcript;
    const box = byId("stream");
    const wasAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 24;
    const struck = byId("voided");
    if (struck.dataset.attempts !== voided.map((past) => past.attempt).join()) {
      struck.dataset.attempts = voided.map((past) => past.attempt).join();
      struck.replaceChildren(
        ...voided.map((past) =>
          element("div", { class: "void" }, element("p", {}, `Attempt ${past.attempt}, void`), element("del", {}, past.text)),
        ),
      );
    }
    const shown = byId("stream-text");
    const node = shown.firstChild;
    if (node && text.startsWith(node.data)) node.appendData(text.slice(node.data.length));
    else shown.textContent = text;
    box.hidden = !text && voided.length === 0;
    if (wasAtEnd) box.scrollTop = box.scrollHeight;
    const isLive = !entry || stateOf(entry.event.state).live;
    shown.classList.toggle("growing", isLive);
    const said = streamNote({ text, voided, hasHole, attempt, isLive });
    setText(byId("stream-note"), said);
    byId("stream-note").hidden = !said;
  }
}

function newStep() {
  const [label, took, bar, detail] = ["label", "took", "bar", "step-detail"].map((name) => element("span", { class: name }));
  const track = element("span", { class: "track", "aria-hidden": "true" }, bar);
  const item = element("li", {}, label, took, track, detail);
  item.parts = { item, label, took, track, bar, detail };
  return item;
}

function streamNote({ text, voided, hasHole, attempt, isLive }) {
  const notes = [];
  const last = voided.at(-1);
  if (last) notes.push(`Attempt ${attempt} began anew: the text of attempt ${last.attempt} is void.`);
  if (text && hasHole) notes.push("Some of the text is missing here.");
  if (!text && !last) {
    notes.push(
      isLive
        ? "Nothing yet. Requests sent with stream=true show their answer here while it is written."
        : "No text came by. Only requests sent with stream=true show it, and only for a while.",
    );
  }
  return notes.join(" ");
}
