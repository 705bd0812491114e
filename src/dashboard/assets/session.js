// Who is at the keyboard, as the server knows them. The token itself stays in a cookie that no script can read.

import { ask } from './api.js';

export const session = { tokens: false, name: '', roles: [], known: false };

/** May whoever is logged in press a button that needs this role? The server asks again. */
export const may = (role) => !session.tokens || session.roles.includes(role) || session.roles.includes('operator');

const take = (told) => Object.assign(session, told, { known: true });

/** Asks the server; false if it wants a token first. */
export async function whoAmI() {
  try {
    take(await ask('GET', '/v1/whoami'));
  } catch (error) {
    if (error.status === 401) return false;
    throw error;
  }
  return true;
}

export const logIn = async (token) => take(await ask('POST', '/v1/login', { token }));

/** Everything that was shown goes with it. */
export async function logOut() {
  await ask('POST', '/v1/logout');
  location.reload();
}
