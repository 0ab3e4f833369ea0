// Elements, made and changed without markup: texts are only ever set as text.

export const byId = (id) => document.getElementById(id);

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** The text, and the same for those who point at it where it is cut off. */
export function setBoth(node, text) {
  setText(node, text);
  if (node.title !== text) node.title = text;
}
