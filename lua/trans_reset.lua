#!lua flags=allow-oom
--[[ trans_reset: make global transactions due now that would have waited longer.

Why      after an outage an operator does not want to wait for the backoff; due times that others move meanwhile must
         not be lost.
KEYS[1]  due zset
ARGV[1]  now, ms
ARGV[2]  ms from which on a due time counts as far away
ARGV[3]  how many at most
Slot     {T/partition}
Returns  {how many were moved, 1 if more are there}
Cost     O(moved * log n)
]]
local limit = tonumber(ARGV[3])
local gids = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[2], '+inf', 'LIMIT', 0, limit + 1)
local moved = math.min(#gids, limit)
for i = 1, moved do redis.call('ZADD', KEYS[1], ARGV[1], gids[i]) end
return { moved, #gids > limit and 1 or 0 }
