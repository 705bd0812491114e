#!lua flags=allow-oom
--[[ trans_drain_lease: take, renew or give back the right to drain one partition.

Why      nodes that copy the same finished transactions do no harm, but do each other's work. A node that died holds it
         for as long as the lease lasts. Renewing it also writes, so that WAITAOF has something to wait for.
         allow-oom: the drain is what frees memory.
KEYS[1]  lease: the node that drains
ARGV[1]  node
ARGV[2]  ms that the lease lasts; 0 gives it back
Slot     {T/partition}
Returns  1 if this node has it (or has given it back), 0 if another one has
Cost     O(1)
]]
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
