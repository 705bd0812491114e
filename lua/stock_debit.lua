#!lua
--[[ stock_debit: send units of a SKU on their way to another partition. First step of a transfer.

Why      two slots cannot change in one step. So the units leave here together with a record that says where to, by which
         anybody can finish what the sender began: stock_credit there, stock_arrived here. One transfer at a time to each
         partition, numbered, so that the other side needs to remember one number and not every transfer.
KEYS[1]  stock hash: <sku>:loaded, <sku>:available (units), :seq, :term (its last sign is ! while the partition is fenced)
KEYS[2]  transit hash: number of the partition the units go to -> '<transfer> <sku> <units>';
         'last:' and that number -> the last transfer to it
ARGV[1]  number of the partition they go to
ARGV[2]  sku
ARGV[3]  least, units wanted at once
ARGV[4]  divisor: of more than the least one part in so many goes
Slot     {sale/partition}, both keys
Returns  {SENT, transfer, units} | {BUSY} (another is on its way there) | {DRY} (or fenced: nobody knows what is left)
Errors   NOCOUNT: a counter is no number (a foreign hand)
Cost     O(1)
]]
local to, sku, least, divisor = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
if redis.call('HEXISTS', KEYS[2], to) == 1 then return { 'BUSY' } end
local stock = redis.call('HMGET', KEYS[1], sku .. ':available', sku .. ':loaded', ':term', ':seq')
local available, loaded = tonumber(stock[1] or '0'), tonumber(stock[2] or '0')
if not available or not loaded then return redis.error_reply('NOCOUNT ' .. KEYS[1] .. ' ' .. sku) end
local units = math.min(available, math.max(least, math.floor(available / divisor)))
if units < 1 or string.sub(stock[3] or '', -1) == '!' then return { 'DRY' } end
-- Checks end here, writes begin: a script has no rollback.
local transfer = redis.call('HINCRBY', KEYS[2], 'last:' .. to, 1)
redis.call('HSET', KEYS[2], to, string.format('%.0f %s %.0f', transfer, sku, units))
redis.call('HSET', KEYS[1], sku .. ':available', string.format('%.0f', available - units),
  sku .. ':loaded', string.format('%.0f', loaded - units), ':seq', string.format('%.0f', (tonumber(stock[4]) or 0) + 1))
return { 'SENT', transfer, units }
