// Building elements. Text goes in as text nodes only: nothing that was posted is ever parsed
// as markup.

const SVG = 'http://www.w3.org/2000/svg';

/** An HTML element: `h('p', { class: 'small' }, 'text', child)`; functions are listeners. */
export function h(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** An SVG element, in the same way. */
export function s(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Puts `children` in place of what `element` holds. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
}

/** Sets an element's text, and leaves an equal one alone, so that selections survive. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const byId = (id) => document.getElementById(id);
