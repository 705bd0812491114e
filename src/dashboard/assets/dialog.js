// Questions before something is changed. The browser's own dialog: it keeps the focus in, and Escape closes it.

import { h } from './dom.js';
import { operator, setOperator } from './api.js';
import { button, field } from './parts.js';
import { session } from './session.js';

/**
 * Asks, and does it. `fields`: more to fill in, `{ name, label, control, hint }`. `run` gets what was filled in, as texts,
 * and throws what is to be shown; the dialog stays until it went well or was left.
 */
export function confirm({ title, text, action, kind = 'primary', fields = [], reason = true, run }) {
  return new Promise((resolve) => {
    const problem = h('p', { class: 'trouble', role: 'alert', hidden: true });
    const go = h('button', { type: 'submit', class: kind }, action);
    const who = h('input', { autocomplete: 'name', maxlength: 100, value: operator(), placeholder: 'who you are' });
    const why = h('input', { maxlength: 500, placeholder: 'for the log of changes' });
    const form = h(
      'form',
      { method: 'dialog' },
      h('h2', null, title),
      text && h('p', null, text),
      fields.map(({ name, label, control, hint }) => [field(name, label, control), hint && h('p', { class: 'hint' }, hint)]),
      reason && [field('reason', 'Reason', why), !session.name && field('operator', 'Your name', who)],
      problem,
      h('div', { class: 'actions' }, button('Leave it', () => dialog.close()), go),
    );
    form.onsubmit = async (event) => {
      event.preventDefault();
      const given = Object.fromEntries(new FormData(form));
      if (reason && !session.name) setOperator(given.operator.trim());
      go.disabled = true;
      problem.hidden = true;
      try {
        resolve((await run(given)) ?? true);
        dialog.close();
      } catch (error) {
        problem.textContent = error.message;
        problem.hidden = false;
        go.disabled = false;
      }
    };
    const dialog = h('dialog', { 'aria-label': title }, form);
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(null);
    });
    document.body.append(dialog);
    dialog.showModal();
    (form.querySelector('input, select, textarea') ?? go).focus();
  });
}

/** Says for a few seconds that something went well, or until it is touched that it did not. */
export function toast(text, bad = false) {
  const node = h('p', { class: bad ? 'toast bad' : 'toast', onclick: () => node.remove() }, text);
  document.getElementById('toasts').append(node);
  if (!bad) setTimeout(() => node.remove(), 5000);
}
