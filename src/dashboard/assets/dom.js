// Elements, and bringing what is on the page up to date without building it anew.
//
// Text only ever becomes text nodes, and attributes are set one by one: nothing that somebody wrote into a gid or a
// payload is read as markup. The server's Content-Security-Policy would refuse it as well.

const SVG = 'http://www.w3.org/2000/svg';
const DRAWN = new Set(['svg', 'path', 'rect', 'g', 'circle', 'polyline']);
const HANDLERS = ['onclick', 'onsubmit', 'oninput', 'onchange', 'onkeydown', 'ontoggle'];

/** An element: `h('td', { class: 'number' }, 5)`. Children may be nested; null and false are left out. */
export function h(tag, attributes, ...children) {
  const node = DRAWN.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (HANDLERS.includes(name)) node[name] = value;
    else if (name === 'value') node.value = value;
    else if (name === 'checked') node.checked = value;
    else node.setAttribute(name, value === true ? '' : String(value));
  }
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
  return node;
}

/** Makes `old` look like `fresh`. What the reader is doing stays: focus, what is typed, what is open, where it scrolled. */
export function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || keyOf(old) !== keyOf(fresh)) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if (old.hasAttribute?.('data-keep')) return;
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(name === 'open' && old.nodeName === 'DETAILS')) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (name !== 'open' && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  for (const name of HANDLERS) if (old[name] !== fresh[name]) old[name] = fresh[name];
  morphChildren(old, [...fresh.childNodes]);
}

export function morphChildren(parent, fresh) {
  const there = [...parent.childNodes];
  fresh.forEach((node, at) => {
    if (at < there.length) morph(there[at], node);
    else parent.append(node);
  });
  there.slice(fresh.length).forEach((node) => node.remove());
}

/** Rows of a list name what they show, so that one row never turns into another under the reader's finger. */
function keyOf(node) {
  return node.getAttribute?.('data-key') ?? null;
}
