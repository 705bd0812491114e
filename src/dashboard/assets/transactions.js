// Global transactions: by status, type, time and text.

import { ask, get, go, query, segment } from './api.js';
import { draw } from './app.js';
import { confirm, toast } from './dialog.js';
import { h } from './dom.js';
import { count } from './format.js';
import { live } from './live.js';
import { act, button, choice, field, pill, section, table, time, trouble } from './parts.js';

const STATUSES = ['prepared', 'submitted', 'aborting', 'succeed', 'failed'];
const TYPES = ['msg', 'saga', 'tcc', 'xa', 'workflow'];
const NAMES = ['status', 'type', 'from', 'to', 'q', 'attention'];
const options = (any, words) => [['', any], ...words.map((word) => [word, word])];
const REFRESH_MS = 3000;

export function transactions(parameters) {
  const filter = Object.fromEntries(NAMES.map((name) => [name, parameters.get(name) ?? '']));
  const state = { rows: null, next: null, problem: null, older: false, asked: 0 };

  async function find(more) {
    state.asked = Date.now();
    try {
      const page = await get(`/v1/transactions${query({ ...filter, after: more ? state.next : '', limit: 50 })}`);
      state.rows = more ? [...state.rows, ...page.transactions] : page.transactions;
      state.next = page.next;
      state.older = more;
      state.problem = null;
    } catch (error) {
      state.problem = error;
    }
    draw();
  }

  const retryAll = () => {
    const open = state.rows.filter((row) => !row.ended_at);
    return confirm({
      title: `Retry ${open.length} transactions`,
      text: 'All unfinished ones of this list are tried now, not when their pause is over.',
      action: 'Retry now',
      run: async ({ reason }) => {
        let done = 0;
        for (const row of open) {
          await ask('POST', `/v1/transactions/${segment(row.gid)}/retry`, { reason });
          done += 1;
        }
        toast(`${done} are tried now`);
        await find(false);
      },
    });
  };

  const chips = () => {
    const counts = live.now?.transactions.counts ?? {};
    const sum = (types) => Object.values(types ?? {}).reduce((all, n) => all + n, 0);
    return h(
      'p',
      { class: 'chips' },
      ['prepared', 'submitted', 'aborting'].map((word) => h('a', { class: 'chip', href: `#/transactions?status=${word}`, 'data-key': word }, pill(word), count(sum(counts[word])))),
      h('a', { class: 'chip', href: '#/transactions?attention=true', 'data-key': 'attention' }, pill('attention')),
      h('a', { class: 'chip', href: '#/transactions', 'data-key': 'all' }, 'all'),
    );
  };

  const form = () =>
    h(
      'form',
      {
        class: 'filter',
        'data-keep': true,
        onsubmit: (event) => {
          event.preventDefault();
          // The address holds the filter: it can be sent to a colleague, and Back goes back.
          const given = Object.fromEntries([...new FormData(event.currentTarget)].map(([name, value]) => [name, value.trim()]));
          const address = `#/transactions${query(given)}`;
          go(address, () => find(false));
        },
      },
      field('status', 'Status', choice(options('any status', STATUSES), filter.status)),
      field('type', 'Type', choice(options('any type', TYPES), filter.type)),
      field('q', 'Text', h('input', { maxlength: 200, value: filter.q, placeholder: 'gid, address, payload, error' })),
      field('from', 'From', h('input', { value: filter.from, placeholder: '2026-11-22T10:00:00Z' })),
      field('to', 'To', h('input', { value: filter.to, placeholder: 'now' })),
      h('button', { type: 'submit', class: 'primary' }, 'Find'),
    );

  const row = (one) => ({
    key: one.gid,
    cells: [
      h('a', { href: `#/transactions/${segment(one.gid)}`, class: 'gid' }, one.gid),
      one.type,
      [pill(one.status), one.attention && pill('attention')],
      time(one.created_at),
      `${one.done}/${one.branches}`,
      one.next_try_at && !one.ended_at ? time(one.next_try_at) : time(one.ended_at),
      h('span', { class: 'said' }, one.last_error && !one.ended_at ? one.last_error.error : one.reason),
    ],
  });

  const view = () => [
    h('div', { class: 'head' }, h('h1', null, 'Transactions'), chips()),
    section(
      null,
      form(),
      state.problem && trouble(state.problem),
      state.rows === null
        ? h('p', { class: 'quiet' }, 'Loading …')
        : table(['gid', 'Type', 'Status', 'Begun', 'Branches', 'Next try / end', 'What was said'], state.rows.map(row), { empty: 'No transaction is like that.' }),
      h(
        'div',
        { class: 'actions' },
        state.next && button('Older', () => find(true)),
        state.rows?.some((one) => !one.ended_at) && act('Retry all unfinished of this list', retryAll),
      ),
    ),
  ];

  find(false);
  // The first page follows what happens; one who reads on is left in peace.
  const update = () => !state.older && Date.now() - state.asked > REFRESH_MS && document.visibilityState === 'visible' && find(false);
  return { view, update };
}
