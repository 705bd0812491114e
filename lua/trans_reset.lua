#!lua flags=allow-oom
--[[ trans_reset: make global transactions due now that would have waited longer.

Why      after an outage an operator does not want to wait for the backoff; due times that others move meanwhile must
         not be lost, and what somebody works on (a lease: half a millisecond) must not be given to another. Leases are
         passed over, however many there are in front: else they could hide what waits behind them.
KEYS[1]  due zset
ARGV[1]  now, ms
ARGV[2]  ms from which on a due time counts as far away
ARGV[3]  how many at most
Slot     {T/partition}
Returns  {how many were moved, 1 if more are there}
Cost     O((limit + leases passed over) * log n); leases are bounded by trans.running_max of all nodes
]]
local limit = tonumber(ARGV[3])
local page, waiting, more = math.max(limit + 1, 100), {}, 0
local from, found = 0, nil
repeat
  found = redis.call('ZRANGEBYSCORE', KEYS[1], ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', from, page)
  for i = 1, #found, 2 do
    if tonumber(found[i + 1]) % 1 == 0 then
      if #waiting == limit then
        more = 1
        break
      end
      waiting[#waiting + 1] = found[i]
    end
  end
  from = from + page
until more == 1 or #found < 2 * page
for i = 1, #waiting do redis.call('ZADD', KEYS[1], ARGV[1], waiting[i]) end
return { #waiting, more }
