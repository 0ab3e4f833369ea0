// The browser's own word on the network. Elsewhere there is none.

/** In a browser: a network that is back is used at once, and one that went away is noticed. */
export function watchNetwork(client) {
  if (typeof globalThis.addEventListener !== "function") return () => {};
  const retry = () => client.state.name === "waiting" && client.connect();
  const handlers = {
    online: () => (retry(), client.ping()),
    offline: () => client.ping(),
    pageshow: () => (retry(), client.ping()),
  };
  for (const [name, handler] of Object.entries(handlers)) globalThis.addEventListener(name, handler);
  return () => Object.entries(handlers).forEach(([name, handler]) => globalThis.removeEventListener(name, handler));
}
