// Pieces that pages are made of.

import { h } from './dom.js';
import { count, when, words } from './format.js';
import { may } from './session.js';

/** A line of the last two minutes; its highest value is its height. */
export function spark(values, label, kind = '') {
  const [width, height] = [120, 28];
  const most = Math.max(...values, 1e-9);
  const step = width / Math.max(values.length - 1, 1);
  const points = values.map((value, at) => `${(at * step).toFixed(1)},${(height - 2 - (value / most) * (height - 4)).toFixed(1)}`);
  return h(
    'svg',
    { class: `spark ${kind}`, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
    values.length > 1 && h('path', { class: 'area', d: `M0,${height}L${points.join('L')}L${width},${height}Z` }),
    values.length > 1 && h('polyline', { class: 'line', points: points.join(' ') }),
  );
}

/** A figure with its name and, below, how it went. */
export const figure = (name, value, chart, hint) =>
  h('div', { class: 'figure', title: hint }, h('span', { class: 'name' }, name), h('strong', null, value), chart);

/** Sold, reserved and available of what was loaded. */
export function stockBar(item) {
  const all = Math.max(item.loaded, 1);
  let x = 0;
  const part = (name, units) => {
    const width = (units / all) * 100;
    const rect = h('rect', { class: name, x: x.toFixed(3), y: 0, width: width.toFixed(3), height: 10 });
    x += width;
    return rect;
  };
  const label = `${item.sku}: ${item.sold} sold, ${item.reserved} reserved, ${item.available} available of ${item.loaded}`;
  return h(
    'svg',
    { class: 'stock', viewBox: '0 0 100 10', preserveAspectRatio: 'none', role: 'img', 'aria-label': label },
    part('sold', item.sold),
    part('reserved', item.reserved),
    part('available', item.available),
  );
}

const KINDS = {
  open: 'good', succeed: 'good', got: 'good', alive: 'good',
  paused: 'warn', reserved: 'warn', aborting: 'warn', prepared: 'quiet', submitted: 'busy', lost: 'warn', refused: 'warn',
  closed: 'quiet', failed: 'bad', cancelled: 'quiet', expired: 'quiet', silent: 'bad', attention: 'bad', no_trace: 'quiet',
};

export const pill = (word) => h('span', { class: `pill ${KINDS[word] ?? 'quiet'}` }, words(word));

export const time = (iso) => (iso ? h('time', { datetime: iso, title: iso }, when(iso)) : h('span', { class: 'quiet' }, '–'));

/** A table; `numbers` are the columns to the right, `swatches` those that
 * have a colour in a bar. On a phone each row becomes a card with the names in front. */
export function table(header, rows, { numbers = [], swatches = [], empty = 'Nothing here.' } = {}) {
  if (rows.length === 0) return h('p', { class: 'quiet empty' }, empty);
  const kind = (at) => (numbers.includes(at) ? 'number' : null);
  return h(
    'div',
    { class: 'scroll' },
    h(
      'table',
      null,
      h('thead', null, h('tr', null, header.map((name, at) => h('th', { scope: 'col', class: kind(at) }, swatches.includes(at) && h('span', { class: `swatch ${name.toLowerCase()}`, 'aria-hidden': 'true' }), name)))),
      h(
        'tbody',
        null,
        rows.map(({ key, cells, kind: rowKind }) =>
          h('tr', { 'data-key': key, class: rowKind }, cells.map((cell, at) => h('td', { class: kind(at), 'data-name': header[at] }, cell))),
        ),
      ),
    ),
  );
}

export const button = (name, onclick, { kind = '', disabled = false, title } = {}) =>
  h('button', { type: 'button', class: kind, onclick, disabled, title }, name);

/** One that changes something: who may not is told so before they try. */
export const act = (name, onclick, options = {}) =>
  button(name, onclick, may('operator') ? options : { ...options, disabled: true, title: 'Your token has not the role operator.' });

/** One field of a form. */
export function field(name, label, control) {
  control.name = name;
  control.id = `f-${name}`;
  return h('label', { class: 'field', for: control.id }, h('span', null, label), control);
}

export const choice = (options, value) =>
  h('select', null, options.map(([word, label]) => h('option', { value: word, selected: word === value }, label)));

/** Names and values, one a line. */
export const facts = (pairs) =>
  h(
    'dl',
    { class: 'facts' },
    pairs.filter(([, value]) => value !== null && value !== undefined && value !== '').map(([name, value]) => [h('dt', null, name), h('dd', null, value)]),
  );

/** What is known and who says so. */
export const evidence = (lines) =>
  table(
    ['When', 'What', 'Said by'],
    lines.map((line, at) => ({ key: `e${at}`, cells: [time(line.at), line.what, h('span', { class: 'quiet' }, line.source)] })),
  );

export const section = (title, ...children) => h('section', { class: 'panel' }, title && h('h2', null, title), children);

export const trouble = (error) => h('p', { class: 'trouble', role: 'alert' }, error.message ?? String(error));

/** Reasons with their counts, most first, as bars. */
export function reasons(counts, rates) {
  const list = Object.entries(counts).sort(([, a], [, b]) => b - a);
  if (list.length === 0) return h('p', { class: 'quiet empty' }, 'Nobody was refused.');
  const most = list[0][1] || 1;
  return h(
    'ul',
    { class: 'bars' },
    list.map(([reason, n]) =>
      h(
        'li',
        { 'data-key': reason },
        h('span', { class: 'name' }, words(reason)),
        h('svg', { viewBox: '0 0 100 6', preserveAspectRatio: 'none', 'aria-hidden': 'true' }, h('rect', { width: ((n / most) * 100).toFixed(2), height: 6 })),
        h('span', { class: 'number' }, count(n)),
        h('span', { class: 'number quiet' }, rates?.[reason] ? `${count(rates[reason])}/s` : ''),
      ),
    ),
  );
}
