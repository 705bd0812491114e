#!lua flags=allow-oom
--[[ stock_arrived: forget a transfer whose units have arrived. Last step of a transfer; a repeat changes nothing.

Why      the record may go once its units are known to be at the other side, and only then; a carrier that comes late with
         an earlier transfer must not take away a later one's.
KEYS[1]  transit hash
ARGV[1]  number of the partition the units went to
ARGV[2]  transfer
Slot     {sale/partition}
Returns  1 if it was forgotten by this call, else 0
Cost     O(1)
]]
local record = redis.call('HGET', KEYS[1], ARGV[1])
if not record or string.match(record, '^%d+') ~= ARGV[2] then return 0 end
return redis.call('HDEL', KEYS[1], ARGV[1])
