// The nodes of this shop, its Redis and its records.

import { h } from './dom.js';
import { ago, count } from './format.js';
import { live } from './live.js';
import { facts, pill, section, table, time } from './parts.js';

export function nodes() {
  return { ticks: true, view };
}

function view() {
  const now = live.now;
  if (!now) return h('p', { class: 'quiet' }, 'Waiting for the server …');
  const at = new Date(now.at).getTime();
  return [
    h('div', { class: 'head' }, h('h1', null, 'Nodes')),
    section(
      null,
      table(
        ['Node', 'State', 'Address', 'Version', 'Started', 'Last heard of', 'Orders in flight', 'Transactions in flight'],
        now.nodes.map((node) => ({
          key: node.node,
          cells: [node.node === now.node ? h('strong', null, `${node.node} (this one)`) : node.node, pill(node.alive ? 'alive' : 'silent'), node.address, node.version, time(node.started_at), ago(node.seen_at, at), count(node.orders_in_flight), count(node.transactions_in_flight)],
        })),
        { numbers: [6, 7], empty: 'No node has said that it is there.' },
      ),
    ),
    h(
      'div',
      { class: 'columns' },
      section('Redis', facts([['Answers', pill(now.redis.usable ? 'alive' : 'silent')], ['Version', now.redis.version], ['Promises', now.redis.promise]])),
      section('Records', facts([['Reached', pill(now.records.reachable ? 'alive' : 'silent')], ['Kind', now.records.kind ?? '–'], ['Written since the start', count(now.counters.records_written_total ?? 0)], ['Failed writes', count(now.counters.records_errors_total ?? 0)]])),
    ),
  ];
}
