#!lua flags=allow-oom
--[[ trans_hurry: make global transactions due that wait for their next try, the oldest ones first.

Why      when a service comes back, what waits for it must not sit out a backoff of minutes. Their new due time is the
         time of their creation, which is in the past, so that they are claimed in the order in which they came.
         What somebody works on (a lease: half a millisecond) or is due anyway is left as it is, and so is what was
         stopped until somebody asks for it.
         allow-oom: finishing them is what frees memory.
KEYS[1]  due zset
KEYS[2]  index zset: gid -> ms of creation
ARGV[1]  now, ms
ARGV[2]  ms of creation to begin with: up to there they were looked at before. No ranks: finished ones leave the index
ARGV[3]  how many to look at
ARGV[4]  due time of what was stopped, ms
Slot     {T/partition}, both keys
Returns  {how many were looked at, ms of creation of the last}; fewer than asked for: there are no more
Cost     O(looked at * log n)
]]
local now, stopped = tonumber(ARGV[1]), tonumber(ARGV[4])
local found = redis.call('ZRANGEBYSCORE', KEYS[2], ARGV[2], '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])
for i = 1, #found, 2 do
  local due = tonumber(redis.call('ZSCORE', KEYS[1], found[i]) or nil)
  if due and due > now and due < stopped and due % 1 == 0 then redis.call('ZADD', KEYS[1], 'XX', found[i + 1], found[i]) end
end
return { #found / 2, found[#found] or ARGV[2] }
