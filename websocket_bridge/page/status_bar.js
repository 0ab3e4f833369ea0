// The connection as it is: live, on its way, stale since when, or closed and why.

import { byId, setText } from "./dom.js";
import { count, timeOfDay } from "./format.js";

const FEEDS = {
  live: "Live",
  catching_up: "Live, the bridge is catching up",
  starting: "Connected, the bridge is starting",
  away: "Connected, but Kafka is away",
};

export class StatusBar {
  #client;
  /** What the bridge does not let this page see, in a sentence. */
  refusal = "";

  constructor(client) {
    this.#client = client;
    byId("retry").addEventListener("click", () => client.connect());
  }

  render({ hasContent, liveRequests }) {
    const { state, feed, isLive } = this.#client;
    const pill = byId("connection");
    pill.dataset.state = isLive && feed !== "live" ? "degraded" : state.name;
    pill.title = state.reason ?? "";
    const words = {
      idle: "Not connected",
      connecting: "Connecting",
      resuming: "Resuming",
      live: FEEDS[feed] ?? feed,
      waiting: navigator.onLine ? "Reconnecting" : "Offline, reconnecting",
      closed: "Closed",
    };
    setText(byId("connection-text"), words[state.name]);
    byId("retry").hidden = !["waiting", "closed"].includes(state.name);
    this.tick();
    this.#renderBanner(hasContent);
    document.body.classList.toggle("stale", !isLive && hasContent);
    const title = !isLive && hasContent ? "Not connected · Sluice" : liveRequests > 0 ? `(${count(liveRequests)}) Sluice` : "Sluice";
    if (document.title !== title) document.title = title;
  }

  tick() {
    const { state } = this.#client;
    const left = state.name === "waiting" ? Math.max(0, Math.ceil((state.retryAt - Date.now()) / 1000)) : null;
    setText(byId("connection-countdown"), left === null ? "" : `in ${left} s`);
  }

  #renderBanner(hasContent) {
    const { state, feed, isLive, heardAt } = this.#client;
    let text = isLive ? this.refusal : "";
    if (isLive && feed === "away") {
      text = "The bridge gets nothing from Kafka at the moment. What you see is the last it knew.";
    } else if (state.name === "closed") {
      text = `The bridge ended the connection: ${state.reason}.${hasContent ? ` What you see is as of ${timeOfDay(heardAt)}.` : ""}`;
    } else if (!isLive && heardAt && state.name === "waiting") {
      text = `Not connected: ${state.reason}. What you see is as of ${timeOfDay(heardAt)}.`;
    }
    const banner = byId("banner");
    setText(banner, text);
    banner.hidden = !text;
  }
}
