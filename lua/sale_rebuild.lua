#!lua flags=allow-oom
--[[ sale_rebuild: put back the books of a partition that Redis does not know any more, fenced, as a node remembers them.

Why      after a FLUSHALL or a restart without its data the sale is gone, and its orders are not: they are in the records and
         at the order service. The books come back with all units available, and nothing is sold before a repair has
         taken those that are.
         allow-oom: these books were there before.
KEYS[1]  sale hash
KEYS[2]  stock hash
KEYS[3]  intake stream, with its group `delivery`
KEYS[4]  finished stream, with its group `records`
ARGV[1]  eight signs that nobody has used
ARGV[2]  number of the last term that the node knows
ARGV[3]  seq, the highest that the node was told
ARGV[4]  n, fields of the sale hash
ARGV[5..] n times: field, value; then for each SKU: sku, units loaded
Slot     {sale/partition}, all keys
Returns  REBUILT | THERE (it is not gone)
Cost     O(SKUs)
]]
if redis.call('EXISTS', KEYS[1]) == 1 then return 'THERE' end
local fields_end = 4 + 2 * tonumber(ARGV[4])
local time = redis.call('TIME')
-- Checks end here, writes begin: a script has no rollback. What is left of the other keys belongs to nobody.
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
redis.call('XGROUP', 'CREATE', KEYS[3], 'delivery', '0', 'MKSTREAM')
redis.call('XGROUP', 'CREATE', KEYS[4], 'records', '0', 'MKSTREAM')
for i = fields_end + 1, #ARGV, 2 do
  local sku, units = ARGV[i], ARGV[i + 1]
  redis.call('HSET', KEYS[2], sku .. ':loaded', units, sku .. ':available', units, sku .. ':reserved', 0,
    sku .. ':sold', 0, sku .. ':archived', 0, sku .. ':grown', 1)
end
redis.call('HSET', KEYS[1], unpack(ARGV, 5, fields_end))
redis.call('HSET', KEYS[1], 'fence', string.format('%.0f 0 %s', time[1] * 1000 + math.floor(time[2] / 1000), ARGV[3]))
local term = string.format('%.0f.%s', tonumber(ARGV[2]) + 1, ARGV[1])
redis.call('HSET', KEYS[2], ':version', redis.call('HGET', KEYS[1], 'version'), ':seq', 0, ':term', term .. '!',
  ':terms', term .. ' 0')
return 'REBUILT'
