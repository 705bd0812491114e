// The audit: units taken equal orders made.

import { ask, get } from './api.js';
import { draw } from './app.js';
import { confirm, toast } from './dialog.js';
import { h } from './dom.js';
import { count } from './format.js';
import { act, button, section, table, trouble } from './parts.js';

const WAIT_MS = 5000;

export function audit(path) {
  const state = { report: null, problem: null, busy: false };

  async function run() {
    state.busy = true;
    draw();
    try {
      state.report = await get(`${path}/audit?wait_ms=${WAIT_MS}`);
      state.problem = null;
    } catch (error) {
      state.problem = error;
    }
    state.busy = false;
    draw();
  }

  const repair = () =>
    confirm({
      title: 'Repair',
      text: 'Brings back what Redis lost of a fenced sale, and opens it. A sale that is not fenced is left alone.',
      action: 'Repair',
      reason: false,
      run: async () => {
        const done = await ask('POST', `${path}/repair?wait_ms=${WAIT_MS}`);
        const back = done.replayed.count + done.recorded.count + done.settled.count + done.found_at_service.count;
        toast(done.fenced ? `${count(back)} orders are back; ${done.open ? 'it sells again' : 'it is still fenced'}` : 'It was not fenced; nothing was changed.', done.problems.length > 0);
        done.problems.forEach((problem) => toast(problem, true));
        await run();
      },
    });

  function verdict(report) {
    const good = report.drift === 0 && report.missing.length === 0 && report.extra.length === 0 && report.problems.length === 0;
    if (!good) return h('p', { class: 'books bad', role: 'alert' }, `✗ does not add up: drift ${count(report.drift)}`);
    const moving = report.settled ? '' : `; ${count(report.in_flight)} in flight`;
    return h('p', { class: 'books good' }, `✓ adds up: drift 0${moving}`);
  }

  const shown = (report) => [
    verdict(report),
    table(
      ['SKU', 'Loaded', 'Available', 'Reserved', 'Sold', 'Records', 'Order service', 'Drift'],
      report.items.map((item) => ({
        key: item.sku,
        cells: [item.sku, ...[item.loaded, item.available, item.reserved, item.sold, item.records_units, item.service_units, item.drift].map(count)],
      })),
      { numbers: [1, 2, 3, 4, 5, 6, 7] },
    ),
    h('p', { class: 'quiet' }, `Orders in the records: ${count(report.records.succeed)} made, ${count(report.records.failed)} refused; at the order service: ${report.orders_at_service === null ? 'not asked' : count(report.orders_at_service)}`),
    [...report.problems, ...report.missing.map((gid) => `missing at the order service: ${gid}`), ...report.extra.map((gid) => `only at the order service: ${gid}`)]
      .slice(0, 50)
      .map((line) => h('p', { class: 'trouble' }, line)),
  ];

  const view = () =>
    section(
      'Audit',
      h('p', { class: 'quiet' }, 'Compares the counters, the records and the order service. It changes nothing.'),
      h('div', { class: 'actions' }, button(state.busy ? 'Comparing …' : 'Run the audit', run, { disabled: state.busy }), act('Repair', repair)),
      state.problem && trouble(state.problem),
      state.report && shown(state.report),
    );

  return { view };
}
