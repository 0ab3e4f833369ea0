// Whether single keys do something. Who speaks to the machine, or hits keys by accident, switches them off; this is kept.

import { byId } from "./dom.js";

const KEPT_AS = "sluice.shortcuts";
const OFF = "off";

export class Shortcuts {
  #button = byId("shortcuts");

  constructor() {
    this.#show(kept() !== OFF);
    this.#button.addEventListener("click", () => {
      this.#show(!this.areOn);
      keep(this.areOn ? null : OFF);
    });
  }

  get areOn() {
    return this.#button.getAttribute("aria-pressed") === "true";
  }

  /** Whether this key is one that does nothing. */
  silence({ key }) {
    return key.length === 1 && !this.areOn;
  }

  #show(areOn) {
    this.#button.setAttribute("aria-pressed", String(areOn));
    byId("keys").classList.toggle("off", !areOn);
  }
}

// A browser that keeps nothing for this page throws.
function kept() {
  try {
    return localStorage.getItem(KEPT_AS);
  } catch {
    return null;
  }
}

function keep(value) {
  try {
    if (value === null) localStorage.removeItem(KEPT_AS);
    else localStorage.setItem(KEPT_AS, value);
  } catch {
    // It holds until the page is left.
  }
}
