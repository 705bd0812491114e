// One sale: how it goes, and what an operator can do about it.

import { ask, get, query, requestId, segment } from './api.js';
import { draw } from './app.js';
import { countdown } from './countdown.js';
import { confirm, toast } from './dialog.js';
import { h } from './dom.js';
import { count, items, latency, perSecond } from './format.js';
import { lastOf, latest, live, series } from './live.js';
import { act, button, choice, facts, field, figure, pill, reasons, section, spark, stockBar, table, time, trouble } from './parts.js';
import { books } from './sales.js';
import { audit } from './audit.js';

const STATUSES = [['', 'any status'], ['submitted'], ['reserved'], ['succeed'], ['failed'], ['cancelled'], ['expired']].map(([word, label]) => [word, label ?? word]);

export function sale(name) {
  const path = `/v1/sales/${segment(name)}`;
  const state = { changes: null, orders: null, next: null, filter: {}, problem: null, seen: null };
  const proof = audit(path);

  const of = () => live.now?.sales.find((one) => one.sale === name) ?? state.shown;

  async function load() {
    try {
      const [shown, changes] = await Promise.all([get(path), get(`${path}/changes?limit=20`)]);
      Object.assign(state, { shown: { conservation_difference: 0, in_flight_here: 0, ...shown }, changes: changes.changes, problem: null });
    } catch (error) {
      state.problem = error;
    }
    draw();
  }

  async function find(more) {
    try {
      const page = await get(`${path}/orders${query({ ...state.filter, after: more ? state.next : '', limit: 25 })}`);
      state.orders = more ? [...state.orders, ...page.orders] : page.orders;
      state.next = page.next;
      state.ordersProblem = null;
    } catch (error) {
      state.ordersProblem = error;
    }
    draw();
  }

  async function change(body, said) {
    await ask('PATCH', path, { ...body, request_id: requestId() });
    toast(said);
    await load();
  }

  const status = (word, title, text, kind) => () =>
    confirm({ title, text, action: title, kind, run: ({ reason }) => change({ status: word, reason }, `${name}: ${word}`) });

  const restock = () =>
    confirm({
      title: `Restock ${name}`,
      text: 'Adds units to a SKU; a negative number withdraws unsold ones, down to zero available.',
      action: 'Restock',
      fields: [
        { name: 'sku', label: 'SKU', control: h('input', { required: true, maxlength: 64, list: 'skus', value: of().items[0]?.sku ?? '' }) },
        { name: 'units', label: 'Units', control: h('input', { required: true, type: 'number', step: 1 }) },
      ],
      run: async ({ sku, units, reason }) => {
        const done = await ask('POST', `${path}/stock`, { sku, units: Number(units), reason, request_id: requestId() });
        toast(`${done.sku}: ${done.units >= 0 ? '+' : ''}${done.units} units`);
        await load();
      },
    });

  const limits = () => {
    const { limit_per_buyer: limit, opens_at: opens, closes_at: closes } = of();
    return confirm({
      title: `Limit and window of ${name}`,
      text: 'Times are UTC, like 2026-11-22T10:00:00Z. Empty means none.',
      action: 'Change',
      fields: [
        { name: 'limit', label: 'Units per buyer', control: h('input', { type: 'number', min: 1, step: 1, value: limit ?? '' }) },
        { name: 'opens', label: 'Opens', control: h('input', { value: opens ?? '', placeholder: 'now' }) },
        { name: 'closes', label: 'Closes', control: h('input', { value: closes ?? '', placeholder: 'never by itself' }) },
      ],
      run: (given) =>
        change({ limit_per_buyer: given.limit === '' ? null : Number(given.limit), opens_at: given.opens.trim() || null, closes_at: given.closes.trim() || null, reason: given.reason }, `${name}: changed`),
    });
  };

  function actions(one) {
    if (one.status === 'closed') return null;
    return h(
      'div',
      { class: 'actions' },
      one.status === 'open'
        ? act('Pause', status('paused', 'Pause', `Orders of ${name} are refused until it is resumed. What was admitted is delivered.`, 'danger'))
        : act('Resume', status('open', 'Resume', `${name} sells again.`, 'primary')),
      act('Restock', restock),
      act('Limit, window', limits),
      act('Close', status('closed', 'Close for good', `${name} cannot be opened again.`, 'danger')),
    );
  }

  function view() {
    const one = of();
    if (!one) return state.problem ? trouble(state.problem) : h('p', { class: 'quiet' }, 'Loading …');
    const seconds = latest((second) => second.sales[name]);
    return [
      h('div', { class: 'head' }, h('h1', null, one.sale), pill(one.status), countdown(one), actions(one)),
      state.problem && trouble(state.problem),
      h(
        'div',
        { class: 'strip' },
        figure('Units taken', perSecond(seconds?.units), spark(series((s) => s.sales[name]?.units), 'units taken a second')),
        figure('Refused', perSecond(seconds?.refusedAll), spark(series((s) => s.sales[name]?.refusedAll), 'refused a second', 'muted')),
        figure('Admission p99', latency(lastOf('admission')?.p99), spark(series((s) => s.admission?.p99), 'admission, 99th percentile', 'muted'), 'of all sales of this node'),
        figure('Undelivered', count(one.backlog.undelivered_batches), null, 'batches with an order that the order service has not answered for good'),
        figure('Waiting', count(one.backlog.retries), null, 'orders that wait for another try'),
        figure('To the records', count(one.backlog.undrained_batches), null, 'batches that ended and wait for the records'),
      ),
      h(
        'div',
        { class: 'columns' },
        section('Stock', h('datalist', { id: 'skus' }, one.items.map((item) => h('option', { value: item.sku }))), stockTable(one), books(one)),
        section('Refused', reasons(one.refused, seconds?.refused)),
      ),
      h('div', { class: 'columns' }, proof.view(), section('Settings', settings(one))),
      ordersPanel(),
      section('Changes', changesTable()),
    ];
  }

  const stockTable = (one) =>
    table(
      ['SKU', '', 'Available', 'Reserved', 'Sold', 'Loaded'],
      one.items.map((item) => ({ key: item.sku, cells: [item.sku, stockBar(item), count(item.available), count(item.reserved), count(item.sold), count(item.loaded)] })),
      { numbers: [2, 3, 4, 5], swatches: [2, 3, 4] },
    );

  const settings = (one) =>
    facts([
      ['Limit per buyer', one.limit_per_buyer ? `${one.limit_per_buyer} units` : 'none'],
      ['Opens', one.opens_at ? time(one.opens_at) : 'open since it was created'],
      ['Closes', one.closes_at ? time(one.closes_at) : 'not by itself'],
      ['Durability', one.durability],
      ['Partitions', one.partitions],
      ['Order endpoint', one.order_endpoint?.url],
      ['Webhook', one.webhook?.url],
      ['Reserved for', one.reserve_for_ms ? `${one.reserve_for_ms / 1000} s` : null],
      ['Created', time(one.created_at)],
    ]);

  const changesTable = () =>
    table(
      ['When', 'Who', 'What', 'Why'],
      (state.changes ?? []).map((entry, at) => ({ key: `${entry.at}-${entry.request_id}-${at}`, cells: [time(entry.at), entry.who || '–', what(entry), entry.why] })),
      { empty: state.changes ? 'Nothing was changed since it was created.' : 'Loading …' },
    );

  function ordersPanel() {
    const form = h(
      'form',
      {
        class: 'filter',
        'data-keep': true,
        onsubmit: (event) => {
          event.preventDefault();
          state.filter = Object.fromEntries(new FormData(event.currentTarget));
          find(false);
        },
      },
      field('status', 'Status', choice(STATUSES, '')),
      field('buyer', 'Buyer', h('input', { maxlength: 128 })),
      field('q', 'Text', h('input', { maxlength: 200, placeholder: 'gid, payload, reason' })),
      field('from', 'From', h('input', { placeholder: '2026-11-22T10:00:00Z' })),
      h('button', { type: 'submit', class: 'primary' }, 'Find orders'),
    );
    return section(
      'Orders',
      form,
      state.ordersProblem && trouble(state.ordersProblem),
      state.orders &&
        table(
          ['Admitted', 'Buyer', 'Items', 'Status', 'Calls', 'What was said', 'gid'],
          state.orders.map((order) => ({
            key: order.gid,
            cells: [
              time(order.admitted_at),
              h('a', { href: `#/buyers${query({ sale: name, buyer: order.buyer })}` }, order.buyer),
              items(order.items),
              pill(order.status),
              count(order.attempts),
              order.last_error ?? '',
              h('a', { href: `#/orders/${segment(order.gid)}`, class: 'gid' }, order.gid),
            ],
          })),
          { numbers: [4], empty: 'No order is like that.' },
        ),
      state.next && button('Older', () => find(true)),
    );
  }

  load();
  return { ticks: true, view };
}

/** A change in a line. */
function what(entry) {
  if (entry.units !== undefined && entry.change?.sku) return `${entry.change.sku} ${entry.units >= 0 ? '+' : ''}${entry.units}`;
  return Object.entries(entry.change ?? {})
    .map(([name, value]) => `${name} ${typeof value === 'object' ? JSON.stringify(value) : value}`)
    .join(', ');
}
