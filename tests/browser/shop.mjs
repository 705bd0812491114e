// A shop of the stories' own: an order service and branches that answer as they are told.

import http from 'node:http';

export class Shop {
  answers = new Map();
  calls = [];

  async open() {
    this.server = http.createServer((request, response) => {
      const path = new URL(request.url, 'http://shop').pathname;
      this.calls.push(`${request.method} ${request.url}`);
      const [status, body] = this.answers.get(path) ?? [200, '{}'];
      request.resume().on('end', () => {
        response.statusCode = status;
        response.end(body);
      });
    });
    await new Promise((done) => this.server.listen(0, '127.0.0.1', done));
    this.base = `http://127.0.0.1:${this.server.address().port}`;
  }

  url = (path) => `${this.base}${path}`;

  tell(path, status, body) {
    this.answers.set(path, [status, body]);
  }

  close() {
    this.server.closeAllConnections();
    this.server.close();
  }
}

/** What the server is asked for behind the page's back: to prepare a story, and to see that it is true. */
export class Api {
  constructor(base, headers = {}) {
    this.base = base;
    this.headers = headers;
  }

  async ask(method, path, body) {
    const response = await fetch(this.base + path, { method, headers: this.headers, body: body && JSON.stringify(body) });
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return JSON.parse(text);
  }

  get = (path) => this.ask('GET', path);
  post = (path, body) => this.ask('POST', path, body);

  /** Places an order; the answer may be a refusal. */
  async order(sale, buyer, sku, payload) {
    const body = JSON.stringify({ buyer, items: [{ sku, quantity: 1 }], payload });
    const response = await fetch(`${this.base}/v1/sales/${sale}/orders?wait_ms=5000`, { method: 'POST', headers: this.headers, body });
    return { status: response.status, ...(await response.json()) };
  }

  saga = (gid, actions, payload = '{}') =>
    this.post('/api/dtmsvr/submit', {
      gid,
      trans_type: 'saga',
      steps: actions.map((action) => ({ action, compensate: '' })),
      payloads: actions.map(() => payload),
    });

  /** Asks until it is so. */
  async until(what, path, done) {
    const deadline = Date.now() + 20_000;
    for (;;) {
      const found = await this.get(path);
      if (done(found)) return found;
      if (Date.now() > deadline) throw new Error(`never: ${what}; ${JSON.stringify(found).slice(0, 500)}`);
      await new Promise((later) => setTimeout(later, 50));
    }
  }
}
