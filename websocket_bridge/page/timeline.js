// The life of a request as steps with a beginning and an end. Pure.

import { cost, exactDuration, stateOf, words } from "./format.js";

const ms = (text) => Date.parse(text);

/**
 * Steps `{kind, label, detail, startMs, endMs}`, oldest first; `endMs` is null where it goes on. From the result where
 * it is known, else from the events that the page saw.
 */
export function stepsOf({ event, history, result }, nowMs) {
  const steps = result?.attempts.length > 0 ? fromResult(result) : fromHistory(history, event);
  const last = steps.at(-1);
  if (last && last.endMs === null && last.kind === "retry") last.detail = countdown(event, nowMs);
  if (!stateOf(event.state).live) {
    const endMs = ms(result?.finished_at ?? event.occurred_at);
    if (last && last.endMs === null) last.endMs = endMs;
    steps.push({ kind: event.state, label: stateOf(event.state).label, detail: ending(event, result), startMs: endMs, endMs });
  }
  return steps;
}

function fromResult({ attempts, timings, submitted_at: submittedAt }) {
  const submitted = ms(submittedAt);
  const queuedEnd = submitted + (timings.queued_ms ?? 0);
  const steps = [{ kind: "queued", label: "Queued", detail: "", startMs: submitted, endMs: queuedEnd }];
  let before = queuedEnd;
  for (const attempt of attempts) {
    const startMs = ms(attempt.started_at);
    const endMs = startMs + attempt.duration_ms;
    const waited = attempt === attempts[0] ? { kind: "waiting", label: "Waiting in the lane" } : { kind: "retry", label: "Waiting for the next attempt" };
    if (startMs > before) steps.push({ ...waited, detail: "", startMs: before, endMs: startMs });
    const label = `Attempt ${attempt.attempt}: ${attempt.provider}`;
    steps.push({ kind: "attempt", outcome: attempt.outcome, label, detail: ofAttempt(attempt), startMs, endMs });
    before = Math.max(before, endMs);
  }
  return steps;
}

function ofAttempt(attempt) {
  return [
    attempt.model,
    attempt.outcome === "answered" ? "answered" : words(attempt.category ?? attempt.outcome),
    attempt.time_to_first_token_ms === undefined ? "" : `first token after ${exactDuration(attempt.time_to_first_token_ms)}`,
    cost(attempt.cost_usd) ?? "cost unknown",
    attempt.possibly_billed ? "possibly billed" : "",
  ].filter(Boolean).join(" · ");
}

function fromHistory(history, event) {
  const [first] = history;
  // The page may have come late: what it did not see is not made up.
  const label = first.attempt > 1 || first.state === "retry_scheduled" ? "Before this page looked" : "Queued";
  const steps = [{ kind: "queued", label, detail: "", startMs: ms(event.submitted_at), endMs: null }];
  for (const past of history) {
    if (!stateOf(past.state).live || (past.state === "queued" && steps.length === 1)) continue;
    const startMs = ms(past.occurred_at);
    steps.at(-1).endMs ??= startMs;
    steps.push({ startMs, endMs: null, ...ofState(past) });
  }
  return steps;
}

function ofState(past) {
  const detail = [past.model, past.reason && words(past.reason)].filter(Boolean).join(" · ");
  if (past.state === "processing") return { kind: "attempt", label: `Attempt ${past.attempt}: ${past.provider ?? "?"}`, detail };
  if (past.state === "retry_scheduled") return { kind: "retry", label: "Waiting for the next attempt", detail };
  return { kind: "queued", label: "Queued again", detail };
}

function countdown(event, nowMs) {
  if (!event.retry_at) return words(event.reason ?? "");
  const left = ms(event.retry_at) - nowMs;
  const when = left > 0 ? `in ${exactDuration(left)}` : "is due";
  return event.reason ? `${when} · ${words(event.reason)}` : when;
}

function ending(event, result) {
  const paid = result?.attempts.length > 0 ? `cost ${cost(result.cost_usd) ?? "unknown"}` : "";
  return [event.reason && words(event.reason), paid].filter(Boolean).join(" · ");
}
