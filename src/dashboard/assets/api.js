// The server's HTTP interface.

/** What the server, or the way to it, refused: `message` is meant for people. */
export class Refused extends Error {
  constructor(message, status, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const ANSWER_MS_MAX = 35_000;

export async function ask(method, path, body) {
  const headers = { accept: 'application/json' };
  if (body !== undefined) headers['content-type'] = 'application/json';
  const who = operator();
  // Bytes of UTF-8, each as one character: a header's value has no other.
  if (who) headers['rushline-operator'] = String.fromCharCode(...new TextEncoder().encode(who));
  let response;
  try {
    response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(ANSWER_MS_MAX),
    });
  } catch (error) {
    throw new Refused(error.name === 'TimeoutError' ? 'The server did not answer in time.' : 'The server cannot be reached.', 0);
  }
  const text = await response.text();
  let json = null;
  try {
    json = JSON.parse(text);
  } catch {
    // A proxy's page, perhaps: the status says enough.
  }
  if (!response.ok) {
    throw new Refused(json?.detail ?? json?.message ?? `The server answered ${response.status}.`, response.status, json?.code);
  }
  return json;
}

export const get = (path) => ask('GET', path);

/** `?a=b` of what is given. */
export function query(parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value !== '' && value !== null && value !== undefined && value !== false);
  return given.length ? `?${new URLSearchParams(given.map(([name, value]) => [name, String(value)]))}` : '';
}

export const segment = encodeURIComponent;

/** To this address; if the page is there already, nothing would notice, and `again` is called. */
export function go(address, again) {
  if (location.hash === address) again();
  else location.hash = address;
}

/** Names a change, so that it happens once however often it is sent. */
export const requestId = () => `ui-${crypto.getRandomValues(new Uint32Array(3)).reduce((id, n) => id + n.toString(36), '')}`;

/** Who is at the keyboard, for the log of changes. */
export function operator() {
  try {
    return localStorage.getItem('rushline.operator') ?? '';
  } catch {
    return ''; // a browser that keeps nothing
  }
}

export function setOperator(name) {
  try {
    localStorage.setItem('rushline.operator', name);
  } catch {
    // Then it is asked for each time.
  }
}
