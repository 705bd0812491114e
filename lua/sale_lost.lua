#!lua flags=allow-oom
--[[ sale_lost: a node writes down what it had acknowledged and Redis does not have any more, for whoever repairs.

Why      each node remembers its own admissions; together in Redis they can be replayed by one, also after a node has gone.
         What is noted once is not noted again, and what was dealt with stays noted as such: an entry that two nodes
         remember is replayed once.
         allow-oom: it is what has to be known before anything is sold.
KEYS[1]  sale hash: fence_unknown = orders that were acknowledged and that nobody remembers
KEYS[2]  outcome hash
KEYS[3]  lost hash: entry id -> its orders, packed (store/lost.rs); '' once dealt with
ARGV[1]  orders that this node acknowledged, that are gone, and that it no longer remembers
ARGV[2..] for each entry: id, its orders, packed
Slot     {sale/partition}, all keys
Returns  entries that are noted by this call
Cost     O(entries)
]]
redis.call('HLEN', KEYS[2])
redis.call('HLEN', KEYS[3])
if tonumber(ARGV[1]) > 0 then redis.call('HINCRBY', KEYS[1], 'fence_unknown', ARGV[1]) end
local noted = 0
for i = 2, #ARGV, 2 do
  if redis.call('HEXISTS', KEYS[2], ARGV[i]) == 0 then
    noted = noted + redis.call('HSETNX', KEYS[3], ARGV[i], ARGV[i + 1])
  end
end
return noted
