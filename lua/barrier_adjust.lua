#!lua
--[[ barrier_adjust: add to an amount for one branch call, exactly once. Runs in a business service's Redis.

Why      mark and amount must change in one step. Marks are looked at first: whoever got the last unit and asks again
         must not hear SHORT, nor must an undoing that has nothing to undo.
KEYS[1]  the amount, a whole number (string)
KEYS[2]  mark of this call: <gid>-<branch_id>-<op>-<barrier_id>
KEYS[3]  mark of the call that this one undoes; absent if it undoes none
ARGV[1]  change of the amount, integer, may be negative
ARGV[2]  ttl_s, seconds the marks are kept, integer >= 1
Slot     the caller's: all keys share a hash tag, such as {sku}
Returns  {ADJUSTED, amount now} | {DUPLICATE} | {EMPTY} | {SHORT}: no such amount, or less than nothing would be left
Errors   WRONGTYPE, or Redis's own words for an amount that is no whole number; nothing was written
Cost     O(1)
]]
if redis.call('GET', KEYS[2]) then return { 'DUPLICATE' } end
if KEYS[3] and not redis.call('GET', KEYS[3]) then
  redis.call('SET', KEYS[3], 'rollback', 'EX', ARGV[2])
  redis.call('SET', KEYS[2], 'op', 'EX', ARGV[2])
  return { 'EMPTY' }
end
local amount = redis.call('GET', KEYS[1])
if not amount or (tonumber(amount) or 0) + tonumber(ARGV[1]) < 0 then return { 'SHORT' } end
-- Checks end here. The amount is the first to be written, as it alone can be refused: it may be no whole number.
local now = redis.call('INCRBY', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], 'op', 'EX', ARGV[2])
return { 'ADJUSTED', now }
