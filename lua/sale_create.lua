#!lua
--[[ sale_create: open the books of one partition of a sale, once.

Why      a repeated creation must find the first one whole, and never load the stock twice.
KEYS[1]  sale hash
KEYS[2]  stock hash; its field `:version` copies the version, for pulses; `:seq` and `:term` begin (see sale_meet)
KEYS[3]  intake stream, with its group `delivery`
KEYS[4]  finished stream, with its group `records`
ARGV[1]  body, the creation request in its canonical form: what a repeat is compared with
ARGV[2]  settings, JSON
ARGV[3]  status: open or paused
ARGV[4]  opens_ms (0 = at once)
ARGV[5]  closes_ms (9007199254740991 = never)
ARGV[6]  limit per buyer, units (0 = none)
ARGV[7..] sku, units, sku, units …
Slot     {sale/partition}, all keys
Returns  CREATED | SAME (this very body created it before) | EXISTS (another body did)
Errors   LEFTOVER: there is no such sale, and yet keys of it (a foreign hand)
Cost     O(SKUs)
]]
local body = redis.call('HGET', KEYS[1], 'body')
if body then return body == ARGV[1] and 'SAME' or 'EXISTS' end
if redis.call('EXISTS', KEYS[2], KEYS[3], KEYS[4]) > 0 then return redis.error_reply('LEFTOVER ' .. KEYS[1]) end
-- Checks end here, writes begin: a script has no rollback.
redis.call('XGROUP', 'CREATE', KEYS[3], 'delivery', '0', 'MKSTREAM')
redis.call('XGROUP', 'CREATE', KEYS[4], 'records', '0', 'MKSTREAM')
for i = 7, #ARGV, 2 do
  local sku, units = ARGV[i], ARGV[i + 1]
  redis.call('HSET', KEYS[2], sku .. ':loaded', units, sku .. ':available', units, sku .. ':reserved', 0,
    sku .. ':sold', 0, sku .. ':archived', 0)
end
local time = redis.call('TIME')
local term = '1.' .. string.sub(redis.sha1hex(KEYS[1] .. time[1] .. time[2]), 1, 8)
redis.call('HSET', KEYS[2], ':version', 1, ':seq', 0, ':term', term, ':terms', term .. ' 0')
redis.call('HSET', KEYS[1], 'body', ARGV[1], 'settings', ARGV[2], 'status', ARGV[3], 'opens_ms', ARGV[4],
  'closes_ms', ARGV[5], 'limit', ARGV[6], 'version', 1, 'created_ms', time[1] * 1000 + math.floor(time[2] / 1000))
return 'CREATED'
