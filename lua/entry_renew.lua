#!lua flags=allow-oom
--[[ entry_renew: keep the lease of entries that this node is still delivering.

Why      a lease is the idle time of a pending entry. Claiming resets it, but a node that slept through its own lease
         must not take an entry back from the one that took over: ask who holds it first.
KEYS[1]  intake stream
ARGV[1]  node
ARGV[2..] entry ids
Slot     {sale/partition}
Returns  the ids that are no longer this node's
Cost     O(ids)
]]
local lost = {}
for i = 2, #ARGV do
  local pending = redis.call('XPENDING', KEYS[1], 'delivery', ARGV[i], ARGV[i], 1)
  if pending[1] and pending[1][2] == ARGV[1] then
    redis.call('XCLAIM', KEYS[1], 'delivery', ARGV[1], 0, ARGV[i], 'JUSTID')
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
