// One order of a sale, and why it stands as it does.

import { ask, get, query, segment } from './api.js';
import { draw } from './app.js';
import { confirm, toast } from './dialog.js';
import { h } from './dom.js';
import { items } from './format.js';
import { act, evidence, facts, pill, section, time, trouble } from './parts.js';
import { payload } from './transaction.js';

const REFRESH_MS = 2000;

export function order(gid) {
  const state = { why: null, problem: null, asked: 0 };

  async function load() {
    state.asked = Date.now();
    try {
      state.why = await get(`/v1/orders/${segment(gid ?? '')}/why`);
      state.problem = null;
    } catch (error) {
      state.problem = error;
    }
    draw();
  }

  const retry = () =>
    confirm({
      title: 'Retry now',
      text: 'The order service is called at once, not when the pause is over.',
      action: 'Retry now',
      kind: 'primary',
      run: async ({ reason }) => {
        await ask('POST', `/v1/orders/${segment(gid)}/retry`, { reason });
        toast(`${gid}: tried now`);
        await load();
      },
    });

  function view() {
    if (!state.why) return state.problem ? trouble(state.problem) : h('p', { class: 'quiet' }, 'Loading …');
    const { order: one, summary, evidence: lines } = state.why;
    return [
      h(
        'div',
        { class: 'head' },
        h('h1', { class: 'gid' }, one.gid),
        pill(one.status),
        one.attention && pill('attention'),
        one.status === 'submitted' && one.attempts > 0 && h('div', { class: 'actions' }, act('Retry now', retry)),
      ),
      state.problem && trouble(state.problem),
      section(null, h('p', { class: 'verdict' }, h('strong', null, summary))),
      h(
        'div',
        { class: 'columns' },
        section('Evidence', evidence(lines)),
        section(
          'Order',
          facts([
            ['Sale', h('a', { href: `#/sales/${segment(one.sale)}` }, one.sale)],
            ['Buyer', h('a', { href: `#/buyers${query({ sale: one.sale, buyer: one.buyer })}` }, one.buyer)],
            ['Items', items(one.items)],
            ['Admitted', time(one.admitted_at)],
            ['Finished', one.finished_at && time(one.finished_at)],
            ['Reserved until', one.reserved_until && time(one.reserved_until)],
            ['Came back', items(one.returned)],
            ['Payload', payload(one.payload && { text: JSON.stringify(one.payload) })],
          ]),
        ),
      ),
    ];
  }

  load();
  const open = () => ['submitted', 'reserved'].includes(state.why?.order.status);
  return { view, update: () => open() && Date.now() - state.asked > REFRESH_MS && load() };
}
