#!lua flags=allow-oom
--[[ sale_touch: write something, so that WAIT and WAITAOF have something to wait for.

Why      both count only what their own connection has written; what others wrote comes before it in the same stream.
         allow-oom: taking over a dead node's orders is what frees memory.
KEYS[1]  sale hash
Slot     {sale/partition}
Returns  how often this was done
Cost     O(1)
]]
return redis.call('HINCRBY', KEYS[1], 'takeovers', 1)
