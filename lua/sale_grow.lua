#!lua
--[[ sale_grow: spread a sale over more partitions, while it sells.

Why      from this step on order_admit refuses to decide for a node that still routes by the old number, so a buyer is
         never decided about in two places. The old numbers are kept: buyers from then have their ledger where that
         number put them. A sale that nobody has bought in has no such buyers.
KEYS[1]  sale hash of partition 0: partitions, homes ('1 4' = the numbers before, oldest first), version
KEYS[2]  stock hash: field `:version` copies the version
KEYS[3]  buyers hash
KEYS[4]  requests hash
ARGV[1]  partitions, at least as many as now
ARGV[2]  most old numbers that are kept
Slot     {sale/0}, all keys
Returns  GROWN | SAME (as many already) | FEWER (more already) | OFTEN (grown too often) | CLOSED | NOSALE
Cost     O(1)
]]
local sale = redis.call('HMGET', KEYS[1], 'status', 'partitions', 'homes', 'version')
if not sale[1] then return 'NOSALE' end
local now, wanted, homes = tonumber(sale[2] or '1'), tonumber(ARGV[1]), sale[3] or ''
if wanted == now then return 'SAME' end
if wanted < now then return 'FEWER' end
if sale[1] == 'closed' then return 'CLOSED' end
local untouched = now == 1 and redis.call('HLEN', KEYS[3]) == 0 and redis.call('HLEN', KEYS[4]) == 0
if not untouched then
  local _, kept = string.gsub(homes, '%d+', '')
  if kept >= tonumber(ARGV[2]) then return 'OFTEN' end
  homes = homes == '' and tostring(now) or homes .. ' ' .. now
end
redis.call('HLEN', KEYS[2])  -- of a wrong type it must fail here
-- Checks end here, writes begin: a script has no rollback.
redis.call('HSET', KEYS[1], 'partitions', wanted, 'homes', homes)
redis.call('HSET', KEYS[2], ':version', redis.call('HINCRBY', KEYS[1], 'version', 1))
return 'GROWN'
