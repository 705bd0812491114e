// The dashboard of a server with tokens, in a real browser: who gets in, what roles may press, what other sites can do, and
// words that would rather be markup.
//
//   OPERATOR=TOKEN READER=TOKEN node login.mjs BASE BROWSER PLAYWRIGHT     a fresh server, a program, a folder
//
// Nothing is slept for. A story fails also when the page logs an error, runs against its Content-Security-Policy, or asks
// anybody but its own server.

import assert from 'node:assert/strict';
import http from 'node:http';
import path from 'node:path';
import { createRequire } from 'node:module';
import { Api, Shop } from './shop.mjs';

const [base, executablePath, playwright] = process.argv.slice(2);
const { OPERATOR, READER } = process.env;
const { chromium } = createRequire(path.join(path.resolve(playwright), 'x.js'))('playwright-core');

const WAIT_MS = 15_000;
const HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>';
const shop = new Shop();
const api = new Api(base, { authorization: `Bearer ${OPERATOR}` });
const troubles = [];

async function prepare() {
  await shop.open();
  shop.tell('/stuck', 500, `no disk left ${HOSTILE}`);
  await api.post('/v1/sales', { sale: 'nov22', items: [{ sku: 'sku-1', units: 40 }], durability: 'memory', order_endpoint: { url: shop.url('/orders') } });
  await api.order('nov22', HOSTILE, 'sku-1', { note: HOSTILE });
  await api.saga('stuck-1', [shop.url('/stuck')], JSON.stringify({ note: HOSTILE }));
  await api.until('stuck-1 failed', '/v1/transactions/stuck-1', (one) => one.failed_passes > 0);
}

function watch(page) {
  page.setDefaultTimeout(WAIT_MS);
  page.on('pageerror', (error) => troubles.push(`an error: ${error.message}`));
  page.on('console', (message) => message.type() === 'error' && !/status of 4\d\d/.test(message.text()) && troubles.push(`the console: ${message.text()}`));
  page.on('request', (request) => request.url().startsWith(base) || troubles.push(`another server: ${request.url()}`));
}

async function logIn(page, token) {
  await page.goto(base);
  await page.getByRole('heading', { name: 'Log in' }).waitFor();
  await page.getByLabel('Token').fill(token);
  await page.getByRole('button', { name: 'Log in' }).click();
}

const dialog = (page) => page.getByRole('dialog');

/** A page of somebody else's, which does what it can. */
async function evilSite(host) {
  const server = http.createServer((_, response) => response.setHeader('content-type', 'text/html').end('<title>evil</title><iframe id=frame></iframe>'));
  await new Promise((done) => server.listen(0, '127.0.0.1', done));
  return { url: `http://${host}:${server.address().port}/`, close: () => server.close() };
}

const stories = {
  async 'nobody sees anything without a token'(page) {
    await page.goto(`${base}/#/sales/nov22`);
    await page.getByRole('heading', { name: 'Log in' }).waitFor();
    assert.equal(await page.getByRole('link', { name: 'Transactions' }).count(), 0);
    await page.getByLabel('Token').fill('rl_wrong');
    await page.getByRole('button', { name: 'Log in' }).click();
    await page.getByRole('alert').getByText('does not know the token').waitFor();
    assert.equal(await page.getByText('sku-1').count(), 0);
  },

  async 'a reader sees all and presses nothing'(page) {
    await logIn(page, READER);
    await page.getByRole('heading', { name: 'nov22' }).waitFor();
    await page.goto(`${base}/#/sales/nov22`);
    for (const name of ['Pause', 'Restock', 'Close', 'Repair']) {
      assert.equal(await page.getByRole('button', { name, exact: true }).isDisabled(), true, name);
    }
    await page.getByRole('button', { name: 'Run the audit' }).click();
    await page.getByText(/adds up: drift 0/).waitFor();
    const kept = await page.evaluate(() => document.cookie + JSON.stringify(localStorage) + JSON.stringify(sessionStorage) + document.documentElement.outerHTML);
    assert.ok(!kept.includes('rl_'), 'a script could read the token');
    // What a page refuses to press the server refuses too.
    assert.equal(await page.evaluate(() => fetch('/v1/sales/nov22', { method: 'PATCH', body: '{"status":"closed"}' }).then((answer) => answer.status)), 403);
    await page.reload();
    await page.getByRole('heading', { name: 'nov22' }).waitFor();
    await page.getByRole('button', { name: 'Log out' }).click();
    await page.getByRole('heading', { name: 'Log in' }).waitFor();
    await page.reload();
    await page.getByRole('heading', { name: 'Log in' }).waitFor();
  },

  async 'an operator pauses under the name of the token'(page) {
    await logIn(page, OPERATOR);
    await page.getByText('operator', { exact: true }).waitFor();
    await page.goto(`${base}/#/sales/nov22`);
    await page.getByRole('button', { name: 'Pause' }).click();
    await dialog(page).getByLabel('Reason').fill('payment is down');
    assert.equal(await dialog(page).getByLabel('Your name').count(), 0, 'the server knows it');
    await dialog(page).getByRole('button', { name: 'Pause' }).click();
    await page.getByRole('row').filter({ hasText: 'payment is down' }).getByText('operator', { exact: true }).waitFor();
  },

  async 'hostile gids, buyers and payloads are words'(page) {
    const hostile = encodeURIComponent(HOSTILE);
    await logIn(page, OPERATOR);
    await page.getByRole('heading', { name: 'nov22' }).waitFor();
    for (const address of [`#/orders/${hostile}`, `#/transactions/${hostile}`, `#/sales/${hostile}`, `#/kv?cat=${hostile}`, `#/transactions?q=${hostile}`, `#/buyers?sale=nov22&buyer=${hostile}`]) {
      await page.goto(`${base}/${address}`);
      await page.locator('main h1, main .trouble').first().waitFor();
    }
    await page.getByText(`${HOSTILE} got 1 × sku-1`).waitFor();
    await page.goto(`${base}/#/transactions/stuck-1`);
    await page.getByText(`no disk left ${HOSTILE}`).first().waitFor();
  },

  // Another site, and another port of this one: to the browser the second is the same site, and gets the cookie sent.
  async 'pages of others change nothing and show nothing'(page, context) {
    await logIn(page, OPERATOR);
    await page.getByRole('heading', { name: 'nov22' }).waitFor();
    for (const host of ['localhost', '127.0.0.1']) {
      const evil = await evilSite(host);
      const other = await context.newPage();
      other.setDefaultTimeout(WAIT_MS);
      await other.goto(evil.url);
      const tried = await other.evaluate(async (server) => {
        const send = (path, options) => fetch(server + path, { credentials: 'include', mode: 'no-cors', ...options }).then((answer) => answer.type, () => 'failed');
        return [
          await send('/v1/sales/nov22/stock', { method: 'POST', body: '{"sku":"sku-1","units":-40,"request_id":"evil"}' }),
          await send('/v1/transactions/stuck-1/stop', { method: 'POST' }),
          await send('/api/dtmsvr/subscribe?topic=evil&url=http://evil', {}),
          await fetch(`${server}/v1/sales`, { credentials: 'include' }).then(() => 'read', () => 'refused'),
        ];
      }, base);
      assert.equal(tried.at(-1), 'refused', `${host} reads nothing`);
      await other.evaluate((server) => {
        document.getElementById('frame').src = server;
      }, base);
      // The frame ends up as an error page of the browser, or as nothing; never as the dashboard.
      await other.waitForLoadState('networkidle');
      for (const frame of other.frames().slice(1)) assert.equal(await frame.getByText('rushline').count(), 0, `${host} frames it`);
      await other.close();
      evil.close();
    }
    assert.equal((await api.get('/v1/sales/nov22')).items[0].loaded, 40);
    assert.equal((await api.get('/v1/transactions/stuck-1')).status, 'submitted');
    assert.deepEqual((await api.get('/api/dtmsvr/scanKV?cat=topics')).kv, []);
  },
};

let failed = 0;
await prepare();
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage'] });
try {
  for (const [name, story] of Object.entries(stories)) {
    const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
    const page = await context.newPage();
    watch(page);
    try {
      await story(page, context);
      assert.equal(await page.evaluate(() => window.hacked), undefined, 'somebody else\'s script ran');
      assert.deepEqual(troubles.splice(0), []);
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED ${name}\n${error.stack}\n${troubles.splice(0).join('\n')}`);
    }
    await context.close();
  }
} finally {
  await browser.close();
  shop.close();
}
console.log(failed ? `${failed} stories failed` : 'all stories are well');
process.exit(failed ? 1 : 0);
