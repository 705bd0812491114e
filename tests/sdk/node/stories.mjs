// dtm's SDK for Node is not on npm; this client sends what it sends (version 0.0.12), with Node's own fetch: message,
// saga and TCC over HTTP. It has no barrier one could trust, so the branches here keep their own books.
//
// tests/it/sdk.rs starts what is needed and runs it.

import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import { after, before, test } from 'node:test'

const server = process.env.RUSHLINE_HTTP + '/api/dtmsvr'
const endWaitMaxMs = 60_000

// ---- the client ---------------------------------------------------------------------------------------------------

async function ask(address, body, query = {}) {
  const url = new URL(address)
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value)
  const options = body === undefined ? {} : { method: 'POST', body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }
  const answer = await fetch(url, options)
  const text = await answer.text()
  if (answer.status !== 200 || text.includes('FAILURE')) throw new Error(`${answer.status} ${text}`)
  return text === '' ? null : JSON.parse(text)
}

const newGid = async () => (await ask(server + '/newGid')).gid

class Message {
  constructor(gid) { this.body = { gid, trans_type: 'msg', steps: [], payloads: [] } }
  add(action, payload) {
    this.body.steps.push({ action })
    this.body.payloads.push(JSON.stringify(payload))
    return this
  }
  prepare(queryPrepared) {
    if (queryPrepared) this.body.query_prepared = queryPrepared
    return ask(server + '/prepare', this.body)
  }
  submit() { return ask(server + '/submit', this.body) }
}

class Saga {
  constructor(gid) { this.body = { gid, trans_type: 'saga', steps: [], payloads: [] } }
  add(action, compensate, payload) {
    this.body.steps.push({ action, compensate })
    this.body.payloads.push(JSON.stringify(payload))
    return this
  }
  concurrent(orders) {
    this.body.custom_data = JSON.stringify({ concurrent: true, orders })
    return this
  }
  submit() { return ask(server + '/submit', this.body) }
}

async function tccGlobalTransaction(gid, tries) {
  const body = { gid, trans_type: 'tcc' }
  let children = 0
  const callBranch = async (payload, urls) => {
    const branch_id = String(++children).padStart(2, '0')
    await ask(server + '/registerTccBranch', { ...body, branch_id, status: 'prepared', data: JSON.stringify(payload), ...urls })
    // The name of the step travels as branch_type, and there is no op.
    return ask(urls.try, payload, { gid, trans_type: 'tcc', branch_id, branch_type: 'try' })
  }
  await ask(server + '/prepare', body)
  try {
    await tries(callBranch)
  } catch (error) {
    await ask(server + '/abort', body)
    return ''
  }
  await ask(server + '/submit', body)
  return gid
}

// ---- the branches -------------------------------------------------------------------------------------------------

const calls = new Map() // by gid: path and branch_id, in their order
const answers = new Map() // by gid and path: statuses in turn; the last one stays
let service
let shop

before(async () => {
  service = createServer((request, response) => {
    const url = new URL(request.url, 'http://shop')
    const gid = url.searchParams.get('gid')
    let body = ''
    request.on('data', (piece) => { body += piece })
    request.on('end', () => {
      const list = calls.get(gid) ?? []
      calls.set(gid, [...list, `${request.method} ${url.pathname} ${url.searchParams.get('branch_id')} ${body}`])
      const told = answers.get(gid + url.pathname) ?? [200]
      response.writeHead(told.length > 1 ? told.shift() : told[0])
      response.end('{}')
    })
  })
  await new Promise((listening) => service.listen(0, '127.0.0.1', listening))
  shop = `http://127.0.0.1:${service.address().port}`
})
after(() => {
  service.close()
  service.closeAllConnections()
})

async function waitFor(gid, status) {
  const deadline = Date.now() + endWaitMaxMs
  for (;;) {
    const { transaction } = await (await fetch(`${server}/query?gid=${gid}`)).json()
    if (transaction.status === status) return transaction
    assert.ok(Date.now() < deadline, `${gid} does not become ${status}: ${JSON.stringify(transaction)}`)
    await new Promise((awake) => setTimeout(awake, 20))
  }
}

const urls = (name) => ({ try: `${shop}/${name}-try`, confirm: `${shop}/${name}-confirm`, cancel: `${shop}/${name}-cancel` })

// ---- the stories --------------------------------------------------------------------------------------------------

test('a saga', async () => {
  const gid = await newGid()
  answers.set(gid + '/in', [500, 425, 200])
  await new Saga(gid).add(shop + '/out', shop + '/out-undo', { n: 1 }).add(shop + '/in', shop + '/in-undo', { n: 2 }).submit()
  await waitFor(gid, 'succeed')
  const tried = 'POST /in 02 {"n":2}'
  assert.deepEqual(calls.get(gid), ['POST /out 01 {"n":1}', tried, tried, tried])
})

test('a saga that is refused', async () => {
  const gid = await newGid()
  answers.set(gid + '/in', [409])
  await new Saga(gid).add(shop + '/out', shop + '/out-undo', {}).add(shop + '/in', shop + '/in-undo', {}).submit()
  await waitFor(gid, 'failed')
  assert.deepEqual(calls.get(gid).slice(2), ['POST /in-undo 02 {}', 'POST /out-undo 01 {}'])
})

test('a saga at once, in an order', async () => {
  const gid = await newGid()
  const saga = new Saga(gid).concurrent({ 1: [0] })
  await saga.add(shop + '/out', '', {}).add(shop + '/in', '', {}).submit()
  await waitFor(gid, 'succeed')
  assert.deepEqual(calls.get(gid), ['POST /out 01 {}', 'POST /in 02 {}'])
})

test('a message', async () => {
  const gid = await newGid()
  const message = new Message(gid).add(shop + '/in', { n: 3 })
  await message.prepare(shop + '/done')
  await message.submit()
  await waitFor(gid, 'succeed')
  assert.deepEqual(calls.get(gid), ['POST /in 01 {"n":3}'])
})

test('messages that nobody submits are asked about', async () => {
  for (const [done, end] of [[200, 'succeed'], [409, 'failed']]) {
    const gid = await newGid()
    answers.set(gid + '/done', [425, done])
    const message = new Message(gid).add(shop + '/in', {})
    message.body.timeout_to_fail = 1
    await message.prepare(shop + '/done')
    await waitFor(gid, end)
    assert.deepEqual(calls.get(gid).slice(0, 2), ['GET /done 00 ', 'GET /done 00 '])
  }
})

test('a TCC', async () => {
  const gid = await newGid()
  const end = await tccGlobalTransaction(gid, async (callBranch) => {
    await callBranch({ n: 1 }, urls('out'))
    await callBranch({ n: 2 }, urls('in'))
  })
  assert.equal(end, gid)
  await waitFor(gid, 'succeed')
  assert.deepEqual(calls.get(gid), ['POST /out-try 01 {"n":1}', 'POST /in-try 02 {"n":2}',
    'POST /in-confirm 02 {"n":2}', 'POST /out-confirm 01 {"n":1}'])
})

test('a TCC that is refused', async () => {
  const gid = await newGid()
  answers.set(gid + '/in-try', [409])
  const end = await tccGlobalTransaction(gid, async (callBranch) => {
    await callBranch({}, urls('out'))
    await callBranch({}, urls('in'))
  })
  assert.equal(end, '')
  await waitFor(gid, 'failed')
  assert.deepEqual(calls.get(gid).slice(2), ['POST /in-cancel 02 {}', 'POST /out-cancel 01 {}'])
})
