// The page in front of all others, where the server wants to know who comes.

import { draw } from './app.js';
import { h } from './dom.js';
import { field, section, trouble } from './parts.js';
import { logIn } from './session.js';

export function login(done) {
  const state = { problem: null };

  async function send(event) {
    event.preventDefault();
    const form = event.currentTarget;
    const { token } = Object.fromEntries(new FormData(form));
    try {
      await logIn(token.trim());
      form.reset();
      done();
    } catch (error) {
      state.problem = error;
      draw();
    }
  }

  const form = h(
    'form',
    { class: 'filter', 'data-keep': true, onsubmit: send },
    field('token', 'Token', h('input', { type: 'password', required: true, autocomplete: 'current-password', maxlength: 8192 })),
    h('button', { type: 'submit', class: 'primary' }, 'Log in'),
  );

  const view = () => [
    h('div', { class: 'head' }, h('h1', null, 'Log in')),
    section(
      null,
      h('p', null, 'This server asks for a token. It stays in this browser for twelve hours, where no page can read it.'),
      form,
      state.problem && trouble(state.problem),
      h('p', { class: 'hint' }, 'rushline token new NAME --role operator (or reader) makes one.'),
    ),
  ];

  return { view };
}
