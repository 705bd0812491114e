// The dashboard in a real browser: every page, every action, by mouse and by keyboard, wide and narrow, light and dark.
//
//   node stories.mjs BASE BROWSER PLAYWRIGHT PICTURES     a fresh server, a program, a folder, a folder
//
// Nothing is slept for: each step waits until the page shows what it must. A story fails also when the page logs an error,
// runs against its Content-Security-Policy, or asks anybody but its own server.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { Api, Shop } from './shop.mjs';

const [base, executablePath, playwright, pictures] = process.argv.slice(2);
const { chromium } = createRequire(path.join(path.resolve(playwright), 'x.js'))('playwright-core');
fs.mkdirSync(pictures, { recursive: true });

const WAIT_MS = 15_000;
const HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>';
const shop = new Shop();
const api = new Api(base);
const troubles = [];

async function prepare() {
  await shop.open();
  shop.tell('/bad-orders', 409, JSON.stringify({ message: `declined ${HOSTILE}` }));
  shop.tell('/stuck', 500, `no disk left ${HOSTILE}`);
  shop.tell('/count', 200, '{"count":0}');
  const sale = (name, fields) =>
    api.post('/v1/sales', { sale: name, items: [{ sku: 'sku-1', units: 40 }, { sku: 'sku-2', units: 5 }], durability: 'memory', order_endpoint: { url: shop.url('/orders') }, ...fields });
  await sale('nov22', { limit_per_buyer: 2 });
  await sale('later', { opens_at: new Date(Date.now() + 3_600_000).toISOString() });
  await sale('refusing', { order_endpoint: { url: shop.url('/bad-orders') } });
  for (let n = 0; n < 30; n += 1) await api.order('nov22', `u${n}`, 'sku-1', { coupon: n < 3 ? HOSTILE : 'SPRING' });
  for (let n = 0; n < 6; n += 1) await api.order('nov22', `late${n}`, 'sku-2');
  await api.order('nov22', HOSTILE, 'sku-1', { note: HOSTILE });
  await api.order('refusing', 'u1', 'sku-1');
  for (const gid of ['good-1', 'good-2']) await api.saga(gid, [shop.url('/pay'), shop.url('/ship')], '{"amount":30}');
  for (const gid of ['stuck-1', 'stuck-2', 'stuck-3']) await api.saga(gid, [shop.url('/pay'), shop.url('/stuck')], JSON.stringify({ note: HOSTILE }));
  for (const gid of ['stuck-1', 'stuck-2', 'stuck-3']) await api.until(`${gid} failed`, `/v1/transactions/${gid}`, (one) => one.failed_passes > 0);
}

function watch(page) {
  page.setDefaultTimeout(WAIT_MS);
  page.on('pageerror', (error) => troubles.push(`an error: ${error.message}`));
  page.on('console', (message) => message.type() === 'error' && !/status of 4\d\d/.test(message.text()) && troubles.push(`the console: ${message.text()}`));
  page.on('request', (request) => request.url().startsWith(base) || troubles.push(`another server: ${request.url()}`));
}

async function open(page, address, heading) {
  await page.goto(`${base}/${address}`);
  await page.getByRole('heading', { name: heading, exact: true }).first().waitFor();
}

const row = (page, text) => page.getByRole('row').filter({ hasText: text });
const panel = (page, title) => page.locator('section.panel').filter({ has: page.getByRole('heading', { name: title, exact: true }) });
const dialog = (page) => page.getByRole('dialog');

/** Presses a button, fills the dialog in, and says yes. */
async function act(page, name, fields, action = name) {
  await page.getByRole('button', { name, exact: true }).first().click();
  for (const [label, value] of Object.entries(fields)) await dialog(page).getByLabel(label, { exact: true }).fill(value);
  await dialog(page).getByRole('button', { name: action, exact: true }).click();
  await dialog(page).waitFor({ state: 'detached' });
}

const stories = {
  async 'sales are shown live'(page) {
    await open(page, '', 'nov22');
    const card = page.locator('article').filter({ hasText: 'nov22' });
    await card.getByText('9 of 40').waitFor();
    await card.getByText('units add up').waitFor();
    await page.locator('article').filter({ hasText: 'later' }).getByText('opens in').waitFor();
    await page.getByText('live', { exact: true }).waitFor();
    await api.order('nov22', 'live', 'sku-1');
    await card.getByText('8 of 40').waitFor();
  },

  async 'a sale is paused, resumed, restocked and limited, each with its reason'(page) {
    await open(page, '#/sales/nov22', 'nov22');
    await page.getByRole('button', { name: 'Pause' }).click();
    await page.keyboard.press('Escape');
    await dialog(page).waitFor({ state: 'detached' });
    assert.equal((await api.get('/v1/sales/nov22')).status, 'open', 'Escape changes nothing');

    await act(page, 'Pause', { Reason: 'payment provider is down', 'Your name': 'Änna' });
    await page.locator('.head').getByText('paused', { exact: true }).waitFor();
    assert.equal((await api.get('/v1/sales/nov22')).status, 'paused');
    await row(page, 'payment provider is down').getByText('Änna').waitFor();
    await act(page, 'Resume', { Reason: 'and back' });
    await page.locator('.head').getByText('open', { exact: true }).waitFor();

    await act(page, 'Restock', { SKU: 'sku-2', Units: '7', Reason: 'found a box' });
    await row(page, 'found a box').getByText('sku-2 +7').waitFor();
    assert.equal((await api.get('/v1/sales/nov22')).items[1].loaded, 12);

    await act(page, 'Limit, window', { 'Units per buyer': '3', Closes: '2090-01-01T00:00:00Z', Reason: 'plenty' }, 'Change');
    await panel(page, 'Settings').getByText('3 units').waitFor();
    await page.locator('.head').getByText('closes in').waitFor();

    await page.getByRole('button', { name: 'Restock' }).click();
    await dialog(page).getByLabel('SKU').fill('sku-2');
    await dialog(page).getByLabel('Units').fill('0');
    await dialog(page).getByRole('button', { name: 'Restock' }).click();
    await dialog(page).getByRole('alert').getByText('units: must be').waitFor();
    await dialog(page).getByRole('button', { name: 'Leave it' }).click();
  },

  async 'a sale is audited and its refusals are counted'(page) {
    await open(page, '#/sales/nov22', 'nov22');
    await page.getByRole('button', { name: 'Run the audit' }).click();
    await panel(page, 'Audit').getByText(/adds up: drift 0/).waitFor();
    await panel(page, 'Audit').getByRole('row').filter({ hasText: 'sku-1' }).waitFor();
    await panel(page, 'Refused').getByText('sold out').waitFor();
    await act(page, 'Repair', {});
    await page.getByText('It was not fenced; nothing was changed.').waitFor();
  },

  async 'orders are found, paged and explained'(page) {
    await open(page, '#/sales/nov22', 'nov22');
    const orders = panel(page, 'Orders');
    await orders.getByRole('button', { name: 'Find orders' }).click();
    await orders.getByRole('row').nth(25).waitFor();
    await orders.getByRole('button', { name: 'Older' }).click();
    await orders.getByRole('row').nth(36).waitFor();
    await orders.getByLabel('Text').fill('window.hacked');
    await page.keyboard.press('Enter');
    // Three payloads, one buyer, and the head.
    await orders.getByRole('row').nth(5).waitFor({ state: 'detached' });
    await orders.getByRole('row').nth(4).waitFor();
    await orders.getByLabel('Text').fill('');
    await orders.getByLabel('Buyer').fill('u7');
    await orders.getByRole('button', { name: 'Find orders' }).click();
    await orders.getByRole('link', { name: /^nov22\.0\./ }).first().click();
    await page.getByText('1 × sku-1 sold: the order service made the order', { exact: true }).waitFor();
    await page.getByText('script reply A').waitFor();
    await page.getByRole('link', { name: 'u7' }).click();
    await page.getByText(/u7 got 1 × sku-1/).waitFor();
  },

  async 'a buyer who got none hears why'(page) {
    await open(page, '#/buyers', 'Why did a buyer get one, or not?');
    const ask = async (buyer, sale, answer) => {
      await page.getByLabel('Sale').selectOption(sale);
      await page.getByLabel('Buyer').fill(buyer);
      await page.getByRole('button', { name: 'Ask why' }).click();
      await page.getByText(answer).first().waitFor();
    };
    await ask('late5', 'nov22', 'late5 was refused: not enough units were left');
    await row(page, 'memory of node').waitFor();
    await ask('nobody', 'nov22', 'this node remembers no refusal');
    await ask('u1', 'refusing', `the order service refused the order: declined ${HOSTILE}`);
    await ask(HOSTILE, 'nov22', `${HOSTILE} got 1 × sku-1`);
  },

  async 'transactions are found and explained'(page) {
    await open(page, '#/transactions', 'Transactions');
    await row(page, 'good-1').getByText('succeed').waitFor();
    await page.getByLabel('Status').selectOption('submitted');
    await page.getByRole('button', { name: 'Find', exact: true }).click();
    await row(page, 'stuck-3').waitFor();
    await row(page, 'good-1').waitFor({ state: 'detached' });
    await page.goBack();
    await row(page, 'good-1').waitFor();
    await page.getByLabel('Text').fill('good-2');
    await page.keyboard.press('Enter');
    await row(page, 'good-1').waitFor({ state: 'detached' });
    await page.locator('.chips').getByText('attention').click();
    await row(page, 'stuck-1').getByText('no disk left').waitFor();
    await page.getByRole('link', { name: 'stuck-1' }).click();
    await page.getByText(`500 Internal Server Error: no disk left ${HOSTILE}`).first().waitFor();
    await page.locator('summary').first().click();
    await page.locator('pre').first().getByText('"note"').waitFor();
    await page.locator('.timeline').getByText('action of 01 succeeded').waitFor();
    await page.goto(`${base}/#/transactions/nobody`);
    await page.getByText('there is no global transaction `nobody`').waitFor();
  },

  async 'transactions are retried and stopped by hand'(page) {
    await open(page, '#/transactions/stuck-2', 'stuck-2');
    await act(page, 'Force stop', { Reason: 'undone by hand' });
    await page.locator('.head').getByText('failed', { exact: true }).waitFor();
    assert.equal((await api.get('/v1/transactions/stuck-2')).status, 'failed');
    assert.equal(await page.getByRole('button', { name: 'Retry now' }).count(), 0, 'it is over');

    shop.tell('/stuck', 200, '{}');
    await open(page, '#/transactions/stuck-1', 'stuck-1');
    await act(page, 'Retry now', { Reason: 'disk is back' });
    await page.locator('.head').getByText('succeed', { exact: true }).waitFor();

    await open(page, '#/transactions?status=submitted', 'Transactions');
    await act(page, 'Retry all unfinished of this list', { Reason: 'all of them' }, 'Retry now');
    await api.until('stuck-3 is done', '/v1/transactions/stuck-3', (one) => one.status === 'succeed');
  },

  async 'topics are kept, and shown as key-value pairs'(page) {
    await open(page, '#/topics', 'Topics');
    await act(page, 'New topic', { Topic: 'points', 'Address of the branch': shop.url('/points'), Remark: HOSTILE }, 'Subscribe');
    await row(page, 'points').getByText(HOSTILE).waitFor();
    await row(page, 'points').getByRole('button', { name: 'Subscribe', exact: true }).click();
    await dialog(page).getByLabel('Address of the branch').fill(shop.url('/mail'));
    await dialog(page).getByRole('button', { name: 'Subscribe' }).click();
    await row(page, 'points').getByText(shop.url('/mail')).waitFor();
    await row(page, 'points').getByRole('listitem').filter({ hasText: '/mail' }).getByRole('button', { name: 'Unsubscribe' }).click();
    await dialog(page).getByRole('button', { name: 'Unsubscribe' }).click();
    await row(page, 'points').getByText(shop.url('/mail')).waitFor({ state: 'detached' });

    await open(page, '#/kv', 'Key-value pairs');
    await row(page, 'points').waitFor();
    await page.getByLabel('Key').fill('none');
    await page.getByRole('button', { name: 'Find' }).click();
    await page.getByText('Nothing in this category.').waitFor();

    await open(page, '#/topics', 'Topics');
    await row(page, 'points').getByRole('button', { name: 'Delete' }).click();
    await dialog(page).getByRole('button', { name: 'Delete' }).click();
    await page.getByText('No topics yet.').waitFor();
  },

  async 'the interface is described'(page) {
    await page.goto(`${base}/docs`);
    await page.getByRole('heading', { name: 'HTTP interface' }).waitFor();
    await page.locator('summary').filter({ hasText: 'Asks for an order' }).click();
    await page.getByText('Idempotency-Key').waitFor();
    await page.getByText('sold_out, limit_reached, order_refused').waitFor();
  },

  async 'nodes are shown'(page) {
    await open(page, '#/nodes', 'Nodes');
    await row(page, '(this one)').getByText('alive').waitFor();
    await panel(page, 'Redis').getByText('alive').waitFor();
  },

  async 'it can be used by keyboard alone'(page) {
    await open(page, '', 'nov22');
    for (const [key, heading] of [['2', 'Transactions'], ['3', 'Why did a buyer get one, or not?'], ['4', 'Topics'], ['5', 'Key-value pairs'], ['6', 'Nodes'], ['7', 'HTTP interface'], ['1', 'nov22']]) {
      await page.keyboard.press(key);
      await page.getByRole('heading', { name: heading, exact: true }).first().waitFor();
    }
    await page.keyboard.press('3');
    await page.getByLabel('Buyer').waitFor();
    await page.keyboard.press('/');
    await page.keyboard.type('u3');
    assert.equal(await page.getByLabel('Buyer').inputValue(), 'u3');
    await page.goto(`${base}/#/sales/nov22`);
    await page.getByRole('button', { name: 'Pause' }).focus();
    await page.keyboard.press('Enter');
    await dialog(page).waitFor();
    assert.equal(await page.evaluate(() => document.activeElement.closest('dialog') !== null), true, 'the focus is in the dialog');
    await page.keyboard.press('Escape');
    await dialog(page).waitFor({ state: 'detached' });
    // What is being typed survives what comes in live.
    await panel(page, 'Orders').getByLabel('Buyer').fill('half of a na');
    await api.order('nov22', 'another', 'sku-1');
    await row(page, 'sku-1').first().getByText('33', { exact: true }).waitFor();
    assert.equal(await panel(page, 'Orders').getByLabel('Buyer').inputValue(), 'half of a na');
  },

  async 'a sale is closed for good'(page) {
    await open(page, '#/sales/later', 'later');
    await act(page, 'Close', { Reason: 'cancelled' }, 'Close for good');
    await page.locator('.head').getByText('closed', { exact: true }).waitFor();
    assert.equal(await page.getByRole('button', { name: 'Pause' }).count(), 0);
  },
};

/** Every page once more, as it looks: nothing may stick out of a phone's screen. */
async function photograph(browser) {
  const pages = [['sales', ''], ['sale', '#/sales/nov22'], ['transactions', '#/transactions'], ['transaction', '#/transactions/stuck-2'], ['buyer', '#/buyers?sale=nov22&buyer=late5'], ['topics', '#/topics'], ['kv', '#/kv'], ['nodes', '#/nodes'], ['api', '#/api']];
  for (const [colorScheme, width, height] of [['light', 1280, 900], ['dark', 1280, 900], ['light', 390, 844], ['dark', 390, 844]]) {
    const context = await browser.newContext({ viewport: { width, height }, colorScheme });
    const page = await context.newPage();
    watch(page);
    for (const [name, address] of pages) {
      await page.goto(`${base}/${address}`);
      await page.locator('main h1, main h2').first().waitFor();
      await page.waitForLoadState('load');
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(wide <= 0, `${name} is ${wide} px wider than a screen of ${width}`);
      await page.screenshot({ path: path.join(pictures, `${name}-${colorScheme}-${width}.png`) });
    }
    await context.close();
  }
}

const chosen = process.env.STORY ?? '';
let failed = 0;
await prepare();
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage'] });
try {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  for (const [name, story] of Object.entries(stories)) {
    if (!name.includes(chosen)) continue;
    const page = await context.newPage();
    watch(page);
    const started = Date.now();
    try {
      await story(page);
      assert.equal(await page.evaluate(() => window.hacked), undefined, 'somebody else\'s script ran');
      assert.deepEqual(troubles.splice(0), []);
      console.log(`ok ${name} (${Date.now() - started} ms)`);
    } catch (error) {
      failed += 1;
      await page.screenshot({ path: path.join(pictures, `failed-${name.replaceAll(/\W+/g, '-')}.png`) }).catch(() => {});
      console.log(`FAILED ${name}\n${error.stack}\n${troubles.splice(0).join('\n')}`);
    }
    await page.close();
  }
  await photograph(browser);
  assert.deepEqual(troubles.splice(0), []);
} finally {
  await browser.close();
  shop.close();
}
console.log(failed ? `${failed} stories failed` : 'all stories are well');
process.exit(failed ? 1 : 0);
