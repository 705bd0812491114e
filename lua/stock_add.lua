#!lua
--[[ stock_add: add units of a SKU while it sells, or withdraw some, exactly once.

Why      an operator who hears nothing asks again; the second ask must hear the first answer and move no stock. Who did
         it, and why, is noted in the same step.
KEYS[1]  sale hash
KEYS[2]  stock hash: <sku>:loaded, <sku>:available (units), <sku>:grown (how often units came back or came in), :seq
KEYS[3]  changes hash: request id -> '<sku> <units asked> <units changed>'
KEYS[4]  log stream: the last changes, one entry each
ARGV[1]  request id
ARGV[2]  sku
ARGV[3]  units, an integer; negative withdraws, down to zero available
ARGV[4]  most units that a SKU may have been loaded with
ARGV[5]  what was asked, JSON: for the log
ARGV[6]  who
ARGV[7]  why
ARGV[8]  most entries of the log
Slot     {sale/partition}, all keys
Returns  {CHANGED | DUPLICATE, units changed} | {REUSED} (that id asked for something else) | {CLOSED} | {TOOMANY}
         | {NOSALE} | {NOSKU} (a new SKU must start with a positive number)
Cost     O(1)
]]
local request, sku, units = ARGV[1], ARGV[2], tonumber(ARGV[3])
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return { 'NOSALE' } end
local earlier = redis.call('HGET', KEYS[3], request)
if earlier then
  local earlier_sku, asked, changed = string.match(earlier, '^(%S+) (%S+) (%S+)$')
  if earlier_sku == sku and asked == ARGV[3] then return { 'DUPLICATE', tonumber(changed) } end
  return { 'REUSED' }
end
if status == 'closed' then return { 'CLOSED' } end
local stock = redis.call('HMGET', KEYS[2], sku .. ':loaded', sku .. ':available')
local known = stock[1] and true or false
if not known and units <= 0 then return { 'NOSKU' } end
local loaded, available = tonumber(stock[1] or 0), tonumber(stock[2] or 0)
local changed = math.max(units, -available) + 0  -- + 0: of nothing available Lua makes -0, which Redis does not count
if loaded + changed > tonumber(ARGV[4]) then return { 'TOOMANY' } end
redis.call('XLEN', KEYS[4])
-- Checks end here, writes begin.
local changed_text = string.format('%.0f', changed)
redis.call('HSET', KEYS[3], request, string.format('%s %s %s', sku, ARGV[3], changed_text))
if not known then redis.call('HSET', KEYS[2], sku .. ':reserved', 0, sku .. ':sold', 0, sku .. ':archived', 0) end
redis.call('HINCRBY', KEYS[2], sku .. ':loaded', changed_text)
redis.call('HINCRBY', KEYS[2], sku .. ':available', changed_text)
if changed > 0 then redis.call('HINCRBY', KEYS[2], sku .. ':grown', 1) end
redis.call('HINCRBY', KEYS[2], ':seq', 1)
redis.call('XADD', KEYS[4], 'MAXLEN', ARGV[8], '*', 'kind', 'stock', 'what', ARGV[5], 'who', ARGV[6], 'why', ARGV[7],
  'request_id', request, 'units', changed_text)
return { 'CHANGED', changed }
