#!lua
--[[ trans_create: store a new global transaction, or answer with the one that is there.

Why      a repeated prepare or submit must find the first one whole: record, due time and index appear in one step.
KEYS[1]  the transaction's hash: v(ersion), s(tatus), g = the record; and while it is prepared n = branches registered,
         and one field <op>/<branch_id> for each of these
KEYS[2]  due zset: gid -> ms when somebody must look at it. A half millisecond marks a lease: somebody works on it
KEYS[3]  index zset of this status and type: gid -> ms of creation
ARGV[1]  gid
ARGV[2]  status
ARGV[3]  ms of creation
ARGV[4]  ms when it is due
ARGV[5]  record, JSON
Slot     {T/partition}, all keys
Returns  {'CREATED'} or {'EXISTS', field, value, field, value …}
Cost     O(log n), four commands
]]
if redis.call('EXISTS', KEYS[1]) == 1 then
  local there = redis.call('HGETALL', KEYS[1])
  table.insert(there, 1, 'EXISTS')
  return there
end
redis.call('HSET', KEYS[1], 'v', 1, 's', ARGV[2], 'g', ARGV[5])
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
return { 'CREATED' }
