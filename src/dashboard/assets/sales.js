// All sales, live.

import { h } from './dom.js';
import { count, latency, perSecond } from './format.js';
import { lastOf, latest, live, series } from './live.js';
import { figure, pill, spark, stockBar } from './parts.js';
import { countdown } from './countdown.js';
import { segment } from './api.js';

const ITEMS_SHOWN = 6;

export function sales() {
  return { ticks: true, view };
}

function view() {
  const now = live.now;
  if (!now) return h('p', { class: 'quiet' }, live.problem ?? 'Waiting for the server …');
  return [
    strip(now),
    now.sales.length === 0
      ? h('section', { class: 'panel' }, h('h1', null, 'No sales yet'), h('p', null, 'Create one: ', h('code', null, 'rushline sale create NAME --item SKU=UNITS --order-endpoint URL')))
      : h('div', { class: 'cards' }, now.sales.map(card)),
    now.more_sales > 0 && h('p', { class: 'quiet' }, `${count(now.more_sales)} older sales are not shown here.`),
  ];
}

/** What this node does, in a line. */
export function strip(now) {
  const admission = lastOf('admission');
  const delivery = lastOf('delivery');
  const inFlight = now.sales.reduce((sum, sale) => sum + sale.in_flight_here, 0);
  return h(
    'div',
    { class: 'strip' },
    figure('Orders', perSecond(latest((s) => s.admitted)), spark(series((s) => s.admitted), 'orders admitted a second')),
    figure('Refused', perSecond(latest((s) => s.refused)), spark(series((s) => s.refused), 'requests refused a second', 'muted')),
    figure('Admission p99', latency(admission?.p99), spark(series((s) => s.admission?.p99), 'admission, 99th percentile', 'muted'), `p50 ${latency(admission?.p50)}; from sending a batch to its durable answer`),
    figure('Order service p99', latency(delivery?.p99), spark(series((s) => s.delivery?.p99), 'order service, 99th percentile', 'muted'), `p50 ${latency(delivery?.p50)}; one call`),
    figure('In flight', count(inFlight), null, 'orders that this node has admitted and that have not ended'),
    figure('To the records', perSecond(latest((s) => s.written)), spark(series((s) => s.written), 'orders written a second', 'muted')),
  );
}

function card(sale) {
  const seconds = latest((second) => second.sales[sale.sale]);
  const left = sale.items.reduce((sum, item) => sum + item.available, 0);
  const refused = Object.values(sale.refused).reduce((sum, n) => sum + n, 0);
  return h(
    'article',
    { class: 'card', 'data-key': sale.sale },
    h('header', null, h('h2', null, h('a', { href: `#/sales/${segment(sale.sale)}` }, sale.sale)), pill(sale.status), countdown(sale)),
    h('ul', { class: 'stocks' }, sale.items.slice(0, ITEMS_SHOWN).map(stock)),
    sale.items.length > ITEMS_SHOWN && h('p', { class: 'quiet' }, `and ${count(sale.items.length - ITEMS_SHOWN + sale.more_items)} more SKUs`),
    h(
      'div',
      { class: 'row' },
      figure('Left', count(left)),
      figure('Units', perSecond(seconds?.units), spark(series((s) => s.sales[sale.sale]?.units), 'units taken a second')),
      figure('Refused', count(refused), spark(series((s) => s.sales[sale.sale]?.refusedAll), 'requests refused a second', 'muted')),
      figure('Waiting', count(sale.backlog.retries), null, 'orders that wait for another try at the order service'),
    ),
    books(sale),
  );
}

const stock = (item) =>
  h('li', { 'data-key': item.sku }, h('span', { class: 'name' }, item.sku), stockBar(item), h('span', { class: 'number' }, `${count(item.available)} of ${count(item.loaded)}`));

/** Loaded is available plus reserved plus sold, or something is badly wrong. */
export const books = (sale) =>
  sale.fenced
    ? h('p', { class: 'books bad', role: 'alert' }, '✗ fenced: Redis lost what it had acknowledged; nothing is sold until it is repaired')
    : sale.conservation_difference === 0
    ? h('p', { class: 'books good', title: 'loaded = available + reserved + sold' }, '✓ units add up')
    : h('p', { class: 'books bad', role: 'alert' }, `✗ off by ${count(sale.conservation_difference)} units: run the audit`);
