#!lua flags=allow-oom
--[[ order_restore: bring an entry back that Redis has lost, with its units, its buyers and its keys. Exactly once.

Why      the orders of a lost entry were acknowledged, and the order service may have made them: their units must not be
         sold again. One that the records do not have is open again under its own id, so that it is delivered once more
         with the same gid; of one that they have only the units move. The lost hash is what makes it happen once, whoever
         else repairs, and however often.
         Units that are not there any more were sold to others in between: taken all the same if ARGV[5] says so, with
         `loaded` raised by what is missing: the sale has sold more than it had, and says so.
         allow-oom: these orders were taken on long ago.
KEYS[1]  stock hash: <sku>:loaded, :available, :reserved, :sold, :archived, :seq
KEYS[2]  requests hash: digest of the idempotency key -> body digest, address
KEYS[3]  buyers hash: buyer -> units held or bought
KEYS[4]  intake stream, with its group `delivery`
KEYS[5]  outcome hash
KEYS[6]  limits hash
KEYS[7]  lost hash: entry id -> its orders, packed; '' once dealt with
ARGV[1]  entry id
ARGV[2]  outcome it gets, a '.' an order; '' = its orders are in the records
ARGV[3]  frames (what the entry keeps)
ARGV[4]  ms that it seems to have lain idle: a lease, so that any node takes it over
ARGV[5]  '1' to take units that are not there
ARGV[6]  'skus buyers requests limits', four counts
ARGV[7..] for each SKU: sku, units; for each buyer: buyer, units; for each request: key digest, body digest and address;
         for each limit: field, units
Slot     {sale/partition}, all keys
Returns  DONE, and then SKU and units that were not there, for each of which that is so | BEFORE (dealt with earlier)
         | HERE (it was not lost) | LATE (younger entries are there: it cannot be brought back under its id)
         | SHORT (units are missing)
Errors   NOCOUNT: a counter is missing or no number (a foreign hand)
Cost     O(orders)
]]
local id, outcome, frames, idle, force = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5] == '1'
local counts = {}
for number in string.gmatch(ARGV[6], '%d+') do counts[#counts + 1] = tonumber(number) end
local skus, buyers, requests, limits = unpack(counts)
local packed = redis.call('HGET', KEYS[7], id)
if not packed or packed == '' then return { 'BEFORE' } end
if redis.call('HEXISTS', KEYS[5], id) == 1 then
  redis.call('HSET', KEYS[7], id, '')
  return { 'HERE' }
end
if outcome ~= '' then
  local ms, sequence = string.match(id, '^(%d+)-(%d+)$')
  local stream = redis.call('XINFO', 'STREAM', KEYS[4])
  for i = 1, #stream, 2 do
    if stream[i] == 'last-generated-id' then
      local last_ms, last_sequence = string.match(stream[i + 1], '^(%d+)-(%d+)$')
      last_ms, last_sequence, ms, sequence = tonumber(last_ms), tonumber(last_sequence), tonumber(ms), tonumber(sequence)
      if last_ms > ms or last_ms == ms and last_sequence >= sequence then return { 'LATE' } end
    end
  end
end
local stock_new, over, at = {}, { 'DONE' }, 7
for i = at, at + 2 * skus - 1, 2 do
  local sku, units = ARGV[i], tonumber(ARGV[i + 1])
  local now = redis.call('HMGET', KEYS[1], sku .. ':loaded', sku .. ':available', sku .. ':reserved', sku .. ':sold',
    sku .. ':archived')
  for k = 1, 5 do
    now[k] = tonumber(now[k] or '0')
    if not now[k] then return redis.error_reply('NOCOUNT ' .. KEYS[1] .. ' ' .. sku) end
  end
  local missing = math.max(0, units - now[2])
  if missing > 0 then
    if not force then return { 'SHORT' } end
    over[#over + 1], over[#over + 2] = sku, string.format('%.0f', missing)
  end
  local open = outcome ~= '' and units or 0
  local fields = { [':loaded'] = now[1] + missing, [':available'] = now[2] + missing - units, [':reserved'] = now[3] + open,
    [':sold'] = now[4] + units - open, [':archived'] = now[5] + units - open }
  for name, value in pairs(fields) do
    stock_new[#stock_new + 1] = sku .. name
    stock_new[#stock_new + 1] = string.format('%.0f', value)
  end
end
redis.call('HLEN', KEYS[2])
redis.call('HLEN', KEYS[3])
redis.call('HLEN', KEYS[6])
local seq = tonumber(redis.call('HGET', KEYS[1], ':seq') or '0')
if not seq then return redis.error_reply('NOCOUNT ' .. KEYS[1] .. ' :seq') end

-- Checks end here, writes begin: a script has no rollback.
redis.call('HSET', KEYS[7], id, '')
if outcome ~= '' then
  redis.call('XADD', KEYS[4], id, 'v1', frames)
  redis.call('XCLAIM', KEYS[4], 'delivery', 'repair', 0, id, 'IDLE', idle, 'FORCE', 'JUSTID')
  redis.call('HSET', KEYS[5], id, outcome)
end
for i = 1, #stock_new, 1000 do redis.call('HSET', KEYS[1], unpack(stock_new, i, math.min(i + 999, #stock_new))) end
at = at + 2 * skus
for i = at, at + 2 * buyers - 1, 2 do redis.call('HINCRBY', KEYS[3], ARGV[i], ARGV[i + 1]) end
at = at + 2 * buyers
for i = at, at + 2 * requests - 1, 2 do redis.call('HSETNX', KEYS[2], ARGV[i], ARGV[i + 1]) end
at = at + 2 * requests
for i = at, at + 2 * limits - 1, 2 do redis.call('HINCRBY', KEYS[6], ARGV[i], ARGV[i + 1]) end
redis.call('HSET', KEYS[1], ':seq', string.format('%.0f', seq + 1))
return over
