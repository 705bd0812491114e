// The frame: which page is shown, the bar above it, the keyboard.

import { h, morph, morphChildren } from './dom.js';
import { live, onChange, start } from './live.js';
import { sales } from './sales.js';
import { sale } from './sale.js';
import { transactions } from './transactions.js';
import { transaction } from './transaction.js';
import { buyers } from './buyers.js';
import { order } from './order.js';
import { topics } from './topics.js';
import { values } from './values.js';
import { nodes } from './nodes.js';
import { reference } from './reference.js';
import { login } from './login.js';
import { button } from './parts.js';
import { logOut, session, whoAmI } from './session.js';

/** Pages by the first word of the address behind `#/`. Each makes `{ view(), update?(), close?() }`. */
const PAGES = { sales: (rest) => (rest[0] ? sale(rest[0]) : sales()), transactions: (rest, parameters) => (rest[0] ? transaction(rest[0]) : transactions(parameters)), buyers: (_, parameters) => buyers(parameters), orders: (rest) => order(rest[0]), topics, kv: values, nodes, api: reference };
const NAMES = [['sales', 'Sales'], ['transactions', 'Transactions'], ['buyers', 'Buyers'], ['topics', 'Topics'], ['kv', 'KV'], ['nodes', 'Nodes'], ['api', 'API']];

const main = document.getElementById('main');
let page = null;
let shown = '';

/** Draws the page as it is now. Pages call it when they learnt something. */
export function draw() {
  if (page) morphChildren(main, [page.view()].flat(Infinity).filter(Boolean));
  bar();
}

function address() {
  const [path, search] = location.hash.replace(/^#\/?/, '').split('?');
  const [word = '', ...rest] = path.split('/').map(decode);
  return { word: word || 'sales', rest, parameters: new URLSearchParams(search ?? '') };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Until the server knows who is there, only that is asked. */
function askWho() {
  page?.close?.();
  page = login(begin);
  main.replaceChildren();
  draw();
  document.title = 'Log in · rushline';
}

function begin() {
  start();
  go();
}

function go() {
  if (!session.known) return;
  const { word, rest, parameters } = address();
  page?.close?.();
  const make = PAGES[word] ?? PAGES.sales;
  shown = Object.hasOwn(PAGES, word) ? word : 'sales';
  page = make(rest, parameters);
  main.replaceChildren();
  draw();
  document.title = `${rest[0] ?? NAMES.find(([name]) => name === shown)?.[1] ?? 'rushline'} · rushline`;
  scrollTo(0, 0);
}

function bar() {
  const now = live.now;
  const state = !live.connected ? ['bad', 'not connected'] : live.problem || !now?.redis.usable ? ['warn', live.problem ?? 'Redis does not answer'] : ['good', 'live'];
  const known = session.tokens && session.known;
  const current = { orders: 'sales' }[shown] ?? shown;
  const fresh = h(
    'header',
    { id: 'bar' },
    h('a', { class: 'brand', href: '#/sales' }, 'rushline'),
    h(
      'nav',
      { 'aria-label': 'Pages' },
      session.known && NAMES.map(([name, label], at) => h('a', { href: `#/${name}`, 'aria-current': name === current ? 'page' : null, title: `key ${at + 1}` }, label)),
    ),
    session.known && h('span', { class: `state ${state[0]}`, title: state[1] }, h('span', { class: 'dot', 'aria-hidden': 'true' }), h('span', null, state[1])),
    known && h('span', { class: 'who' }, h('span', { title: session.roles.join(', ') }, session.name), button('Log out', logOut, { kind: 'small' })),
  );
  morph(document.getElementById('bar'), fresh);
}

addEventListener('hashchange', go);
addEventListener('keydown', (event) => {
  const typing = event.target.closest('input, select, textarea, dialog');
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const at = Number(event.key) - 1;
  if (session.known && NAMES[at]) location.hash = `#/${NAMES[at][0]}`;
  if (event.key === '/') {
    event.preventDefault();
    document.querySelector('main input')?.focus();
  }
});

onChange(() => {
  page?.update?.();
  draw();
});
// What counts by the second counts also while the server says nothing.
setInterval(() => page?.ticks && draw(), 1000);
try {
  if (await whoAmI()) begin();
  else askWho();
} catch (error) {
  main.replaceChildren(h('p', { class: 'trouble', role: 'alert' }, error.message));
}
