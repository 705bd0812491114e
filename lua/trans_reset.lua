#!lua flags=allow-oom
--[[ trans_reset: make global transactions due now that would have waited longer.

Why      after an outage an operator does not want to wait for the backoff; due times that others move meanwhile must
         not be lost, and what somebody works on (a lease: half a millisecond) must not be given to another.
KEYS[1]  due zset
ARGV[1]  now, ms
ARGV[2]  ms from which on a due time counts as far away
ARGV[3]  how many at most
Slot     {T/partition}
Returns  {how many were moved, 1 if more are there}
Cost     O(limit * log n)
]]
local limit = tonumber(ARGV[3])
local found = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, limit + 1)
local moved = 0
for i = 1, math.min(#found, 2 * limit), 2 do
  if tonumber(found[i + 1]) % 1 == 0 then
    redis.call('ZADD', KEYS[1], ARGV[1], found[i])
    moved = moved + 1
  end
end
return { moved, #found > 2 * limit and 1 or 0 }
