// Key-value pairs, by category: what the server keeps beside transactions.

import { get, go, query } from './api.js';
import { draw } from './app.js';
import { h } from './dom.js';
import { field, section, table, trouble } from './parts.js';
import { payload } from './transaction.js';

export function values(_, parameters) {
  const given = { cat: parameters.get('cat') || 'topics', key: parameters.get('key') ?? '' };
  const state = { list: null, problem: null };

  async function load() {
    try {
      state.list = (await get(`/api/dtmsvr/queryKV${query(given)}`)).kv;
    } catch (error) {
      state.problem = error;
    }
    draw();
  }

  const form = () =>
    h(
      'form',
      {
        class: 'filter',
        'data-keep': true,
        onsubmit: (event) => {
          event.preventDefault();
          const address = `#/kv${query(Object.fromEntries(new FormData(event.currentTarget)))}`;
          go(address, load);
        },
      },
      field('cat', 'Category', h('input', { required: true, value: given.cat })),
      field('key', 'Key', h('input', { value: given.key, placeholder: 'all' })),
      h('button', { type: 'submit', class: 'primary' }, 'Find'),
    );

  const view = () => [
    h('div', { class: 'head' }, h('h1', null, 'Key-value pairs')),
    section(
      null,
      form(),
      state.problem && trouble(state.problem),
      state.list && table(['Key', 'Version', 'Value'], state.list.map(({ k, v, version }) => ({ key: k, cells: [k, version, payload({ text: v })] })), { numbers: [1], empty: 'Nothing in this category.' }),
    ),
  ];

  load();
  return { view };
}
