// One global transaction: what it is, what was done, what went wrong; retry, stop.

import { ask, get, segment } from './api.js';
import { draw } from './app.js';
import { confirm, toast } from './dialog.js';
import { h } from './dom.js';
import { count, pretty } from './format.js';
import { act, facts, pill, section, table, time, trouble } from './parts.js';

const REFRESH_MS = 2000;

export function transaction(gid) {
  const path = `/v1/transactions/${segment(gid)}`;
  const state = { one: null, problem: null, asked: 0 };

  async function load() {
    state.asked = Date.now();
    try {
      state.one = await get(path);
      state.problem = null;
    } catch (error) {
      state.problem = error;
    }
    draw();
  }

  const byHand = (what, title, text, kind) => () =>
    confirm({
      title,
      text,
      action: title,
      kind,
      run: async ({ reason }) => {
        const done = await ask('POST', `${path}/${what}`, { reason });
        toast(`${gid}: ${what === 'stop' ? 'stopped' : 'tried now'}, ${done.status}`);
        await load();
      },
    });

  const actions = (one) =>
    !one.ended_at &&
    h(
      'div',
      { class: 'actions' },
      act('Retry now', byHand('retry', 'Retry now', 'It is tried at once, not when its pause is over.', 'primary')),
      act('Force stop', byHand('stop', 'Force stop', 'It ends as failed. No branch is called any more, not even to undo what was done.', 'danger'), { kind: 'danger' }),
    );

  /** Oldest first: what is known to have happened, and what comes. */
  function timeline(one) {
    const lines = [
      [one.created_at, 'begun'],
      ...one.branch_list.flatMap((branch) => [
        [branch.finished_at, `${branch.op} of ${branch.branch_id} succeeded`],
        [branch.refused_at, `${branch.op} of ${branch.branch_id} was refused`],
      ]),
      [one.last_error?.at, one.last_error && `${one.last_error.op} of ${one.last_error.branch_id} went wrong: ${one.last_error.error}`],
      [one.ended_at, one.status === 'succeed' ? 'succeeded' : `failed${one.reason ? `: ${one.reason}` : ''}`],
      [one.next_try_at, one.ended_at ? null : 'is tried again'],
    ].filter(([at, what]) => at && what);
    lines.sort(([a], [b]) => new Date(a) - new Date(b));
    return h('ol', { class: 'timeline' }, lines.map(([at, what]) => h('li', { class: new Date(at) > Date.now() && 'to-come' }, time(at), h('span', null, what))));
  }

  const branches = (one) =>
    table(
      ['Branch', 'Op', 'Status', 'When', 'Address', 'Payload'],
      one.branch_list.map((branch, at) => ({
        key: `${branch.branch_id}/${branch.op}/${at}`,
        cells: [branch.branch_id, branch.op, pill(branch.status), time(branch.finished_at ?? branch.refused_at), h('span', { class: 'address' }, branch.url || '–'), payload(branch.payload)],
      })),
      { empty: 'It has no branches yet.' },
    );

  function view() {
    const one = state.one;
    if (!one) return state.problem ? trouble(state.problem) : h('p', { class: 'quiet' }, 'Loading …');
    return [
      h('div', { class: 'head' }, h('h1', { class: 'gid' }, one.gid), pill(one.status), one.attention && pill('attention'), one.paused && pill('paused'), actions(one)),
      state.problem && trouble(state.problem),
      one.last_error && !one.ended_at && h('p', { class: 'trouble' }, `${one.last_error.error} (${one.last_error.op} of ${one.last_error.branch_id}, ${count(one.last_error.times)} times)`),
      h(
        'div',
        { class: 'columns' },
        section('Timeline', timeline(one)),
        section(
          'What it is',
          facts([
            ['Type', one.type],
            ['Protocol', one.protocol],
            ['Begun', time(one.created_at)],
            ['Changed', time(one.updated_at)],
            ['Ended', one.ended_at && time(one.ended_at)],
            ['Next try', !one.ended_at && one.next_try_at ? time(one.next_try_at) : null],
            ['In work now', one.ended_at ? null : one.in_work ? 'yes' : 'no'],
            ['Failed passes in a row', one.failed_passes || null],
            ['Reason', one.reason],
            ['Check-back', one.query_prepared],
            ['Result', one.result],
            ['Custom data', one.custom_data],
            ['Options', Object.entries(one.options).filter(([, value]) => value && value.length !== 0).map(([name, value]) => `${name} ${value}`).join(', ')],
            ['Held in', one.held_in === 'redis' ? 'Redis' : 'the records'],
          ]),
        ),
      ),
      section('Branches', branches(one)),
    ];
  }

  load();
  const update = () => state.one && !state.one.ended_at && Date.now() - state.asked > REFRESH_MS && load();
  return { view, update };
}

export function payload(given) {
  if (!given) return '–';
  const text = given.text ?? given.base64;
  if (!text) return h('span', { class: 'quiet' }, 'empty');
  const short = text.length > 60 ? `${text.slice(0, 60)}…` : text;
  return h('details', null, h('summary', null, h('code', null, short), given.base64 !== undefined && ' (base64)'), h('pre', { tabindex: 0 }, pretty(text)));
}
