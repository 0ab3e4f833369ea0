// What the reader looks at: kept in the address, so that a reload or a link shows the same.

import { STATES } from "./format.js";

export const VIEWS = ["requests", "lanes", "letters"];

/** The ids (and the correlation id) that the address asks for: then nothing else is followed. */
export function askedFor(search) {
  const query = new URLSearchParams(search);
  const ids = query.getAll("request_id").flatMap((value) => value.split(",")).map((id) => id.trim()).filter(Boolean);
  return { ids, correlationId: query.get("correlation_id") };
}

export function readView(hash) {
  const kept = new URLSearchParams(hash.replace(/^#/, ""));
  const view = kept.get("view");
  return {
    view: VIEWS.includes(view) ? view : "requests",
    text: kept.get("filter") ?? "",
    states: new Set((kept.get("states") ?? "").split(",").filter((name) => Object.hasOwn(STATES, name))),
    open: kept.get("open"),
    openOnly: kept.get("letters") === "open",
  };
}

export function writeView({ view, text, states, open, openOnly }) {
  const kept = new URLSearchParams();
  if (view !== "requests") kept.set("view", view);
  if (open !== null) kept.set("open", open);
  if (text) kept.set("filter", text);
  if (states.size > 0) kept.set("states", [...states].join(","));
  if (openOnly) kept.set("letters", "open");
  const hash = kept.size > 0 ? `#${kept}` : "";
  if (location.hash !== hash) history.replaceState(null, "", `${location.pathname}${location.search}${hash}`);
}
