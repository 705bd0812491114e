// Topics of two-phase messages and their subscribers.

import { ask, get, query, segment } from './api.js';
import { draw } from './app.js';
import { confirm, toast } from './dialog.js';
import { h } from './dom.js';
import { act, button, section, table, trouble } from './parts.js';

const PAGE = 200;

export function topics() {
  const state = { list: null, next: '', problem: null };

  async function load(more = false) {
    try {
      const page = await get(`/api/dtmsvr/scanKV${query({ cat: 'topics', limit: PAGE, position: more ? state.next : '' })}`);
      const read = page.kv.map(({ k, v }) => ({ name: k, subscribers: JSON.parse(v) ?? [] }));
      state.list = more ? [...state.list, ...read] : read;
      state.next = page.next_position;
      state.problem = null;
    } catch (error) {
      state.problem = error;
    }
    draw();
  }

  const subscribe = (topic = '') =>
    confirm({
      title: topic ? `Subscribe to ${topic}` : 'New topic',
      text: 'Messages to the topic are sent to every subscriber of that moment.',
      action: 'Subscribe',
      reason: false,
      fields: [
        { name: 'topic', label: 'Topic', control: h('input', { required: true, value: topic, readonly: topic !== '' }) },
        { name: 'url', label: 'Address of the branch', control: h('input', { required: true, placeholder: 'http://shop/points' }) },
        { name: 'remark', label: 'Remark', control: h('input', {}) },
      ],
      run: async (given) => {
        await ask('POST', `/api/dtmsvr/subscribe${query(given)}`);
        toast(`${given.topic}: subscribed`);
        await load();
      },
    });

  const unsubscribe = (topic, url) =>
    confirm({
      title: `Unsubscribe from ${topic}`,
      text: `${url} gets no more messages of this topic.`,
      action: 'Unsubscribe',
      kind: 'danger',
      reason: false,
      run: async () => {
        await ask('POST', `/api/dtmsvr/unsubscribe${query({ topic, url })}`);
        toast(`${topic}: unsubscribed`);
        await load();
      },
    });

  const remove = (topic) =>
    confirm({
      title: `Delete topic ${topic}`,
      text: 'With all its subscribers. Messages that name it go nowhere.',
      action: 'Delete',
      kind: 'danger',
      reason: false,
      run: async () => {
        await ask('DELETE', `/api/dtmsvr/topic/${segment(topic)}`);
        toast(`${topic} is deleted`);
        await load();
      },
    });

  const rows = () =>
    state.list.map(({ name, subscribers }) => ({
      key: name,
      cells: [
        name,
        h(
          'ul',
          { class: 'plain' },
          subscribers.map(({ url, remark }) =>
            h('li', { 'data-key': url }, h('span', { class: 'address' }, url), remark && h('span', { class: 'quiet' }, ` ${remark} `), act('Unsubscribe', () => unsubscribe(name, url), { kind: 'small' })),
          ),
        ),
        h('div', { class: 'actions' }, act('Subscribe', () => subscribe(name), { kind: 'small' }), act('Delete', () => remove(name), { kind: 'small danger' })),
      ],
    }));

  const view = () => [
    h('div', { class: 'head' }, h('h1', null, 'Topics'), h('div', { class: 'actions' }, act('New topic', () => subscribe(), { kind: 'primary' }))),
    section(
      null,
      state.problem && trouble(state.problem),
      state.list === null ? h('p', { class: 'quiet' }, 'Loading …') : table(['Topic', 'Subscribers', ''], rows(), { empty: 'No topics yet. A message to topic://NAME goes to all who subscribed to NAME.' }),
      state.next && button('More', () => load(true)),
    ),
  ];

  load();
  return { view };
}
