#!lua flags=allow-oom
--[[ stock_credit: units arrive from another partition. Second step of a transfer; a repeat changes nothing.

Why      whoever carries a transfer may die after this step, and another then repeats it: transfers from one partition are
         numbered and come one after the other, so one that is not above the last was here before.
KEYS[1]  stock hash: <sku>:loaded, :available, :grown (how often units came back or came in), and the others
KEYS[2]  credited hash: number of the partition that units came from -> its last transfer that arrived
ARGV[1]  number of the partition they come from
ARGV[2]  transfer
ARGV[3]  sku
ARGV[4]  units
Slot     {sale/partition}, both keys
Returns  1 if they arrived by this call, 0 if they had before
Errors   NOCOUNT: a counter is no number (a foreign hand)
Cost     O(1)
]]
local from, transfer, sku, units = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
if tonumber(redis.call('HGET', KEYS[2], from) or '0') >= transfer then return 0 end
local stock = redis.call('HMGET', KEYS[1], sku .. ':available', sku .. ':loaded', sku .. ':grown')
local available, loaded, grown = tonumber(stock[1] or '0'), tonumber(stock[2] or '0'), tonumber(stock[3] or '0')
if not available or not loaded or not grown then return redis.error_reply('NOCOUNT ' .. KEYS[1] .. ' ' .. sku) end
-- Checks end here, writes begin: a script has no rollback.
redis.call('HSET', KEYS[2], from, ARGV[2])
if not stock[1] then
  redis.call('HSET', KEYS[1], sku .. ':reserved', 0, sku .. ':sold', 0, sku .. ':archived', 0)
end
redis.call('HSET', KEYS[1], sku .. ':available', string.format('%.0f', available + units),
  sku .. ':loaded', string.format('%.0f', loaded + units), sku .. ':grown', string.format('%.0f', grown + 1))
return 1
