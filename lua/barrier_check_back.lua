#!lua
--[[ barrier_check_back: did the local part of a message happen? Runs in a business service's Redis.

Why      asking also rules it out from now on, so the answer is final: a local part that comes later hears DUPLICATE.
KEYS[1]  mark of the message's local part: <gid>-00-msg-01
ARGV[1]  ttl_s, seconds the mark is kept, integer >= 1
Slot     the caller's: the slot of the amount, by the hash tag in the gid
Returns  {COMMITTED} | {ROLLED_BACK}
Cost     O(1)
]]
local mark = redis.call('GET', KEYS[1])
if not mark then
  redis.call('SET', KEYS[1], 'rollback', 'EX', ARGV[1])
  return { 'ROLLED_BACK' }
end
if mark == 'rollback' then return { 'ROLLED_BACK' } end
return { 'COMMITTED' }
