#!lua flags=allow-oom
--[[ trans_claim: take the global transactions that are due, oldest first, for as long as the lease lasts.

Why      reading and moving the due time in one step: no two nodes claim the same one, and one that a dead node claimed
         is due again when the lease runs out. The records are read after this, by their own keys.
         allow-oom: it must go on when memory is short, or nothing would finish.
KEYS[1]  due zset
ARGV[1]  now, ms
ARGV[2]  ms when the lease ends
ARGV[3]  how many at most
Slot     {T/partition}
Returns  gids, oldest first
Cost     O(claimed * log n)
]]
local gids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for i = 1, #gids do redis.call('ZADD', KEYS[1], ARGV[2], gids[i]) end
return gids
