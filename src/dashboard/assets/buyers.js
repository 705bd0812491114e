// Why did u1 not get one?

import { get, go, query, segment } from './api.js';
import { draw } from './app.js';
import { h } from './dom.js';
import { count, items } from './format.js';
import { live } from './live.js';
import { choice, evidence, field, pill, section, table, time, trouble } from './parts.js';

export function buyers(parameters) {
  const given = { sale: parameters.get('sale') ?? '', buyer: parameters.get('buyer') ?? '' };
  const state = { why: null, problem: null, busy: false, known: '' };

  async function find() {
    state.busy = true;
    draw();
    try {
      state.why = await get(`/v1/sales/${segment(given.sale)}/buyers/${segment(given.buyer)}`);
      state.problem = null;
    } catch (error) {
      state.problem = error;
    }
    state.busy = false;
    draw();
  }

  function form() {
    const names = live.now?.sales.map((sale) => sale.sale) ?? [];
    const all = given.sale && !names.includes(given.sale) ? [given.sale, ...names] : names;
    return h(
      'form',
      {
        class: 'filter',
        // Built anew only when there are other sales to choose from.
        'data-key': all.join(' '),
        'data-keep': true,
        onsubmit: (event) => {
          event.preventDefault();
          const form = Object.fromEntries(new FormData(event.currentTarget));
          const address = `#/buyers${query({ sale: form.sale, buyer: form.buyer })}`;
          go(address, find);
        },
      },
      field('buyer', 'Buyer', h('input', { required: true, maxlength: 128, value: given.buyer, placeholder: 'u1' })),
      field('sale', 'Sale', choice(all.map((name) => [name, name]), given.sale || all[0])),
      h('button', { type: 'submit', class: 'primary' }, 'Ask why'),
    );
  }

  const answer = (why) => [
    section(
      null,
      h('p', { class: 'verdict' }, pill(why.verdict), h('strong', null, `${why.buyer} ${why.summary}`)),
      h('p', { class: 'quiet' }, `${count(why.units_held)} units held, limit ${why.limit_per_buyer ?? 'none'}`),
    ),
    why.orders.length > 0 &&
      section(
        'Orders',
        table(
          ['Admitted', 'Items', 'Status', 'Calls', 'What was said', 'gid'],
          why.orders.map((order) => ({
            key: order.gid,
            cells: [time(order.admitted_at), items(order.items), pill(order.status), count(order.attempts), order.last_error ?? '', h('a', { href: `#/orders/${segment(order.gid)}`, class: 'gid' }, order.gid)],
          })),
          { numbers: [3] },
        ),
      ),
    section('Evidence', evidence(why.evidence)),
  ];

  const view = () => [
    h('div', { class: 'head' }, h('h1', null, 'Why did a buyer get one, or not?')),
    section(null, form(), state.problem && trouble(state.problem), state.busy && h('p', { class: 'quiet' }, 'Looking …')),
    state.why && !state.problem && answer(state.why),
  ];

  if (given.buyer && given.sale) find();
  return { view };
}
