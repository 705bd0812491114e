#!lua
--[[ trans_create: store a new global transaction, unless there is one by its gid.

Why      a repeated prepare or submit must find the first one whole: record, due time and index appear in one step. The
         record is one string: a hash would take half as much again.
KEYS[1]  record: '<version, ten digits> <status> <JSON>'
KEYS[2]  due zset: gid -> ms when somebody must look at it. A half millisecond marks a lease: somebody works on it
KEYS[3]  index zset of this status and type: gid -> ms of creation
ARGV[1]  gid
ARGV[2]  status
ARGV[3]  ms of creation
ARGV[4]  ms when it is due
ARGV[5]  JSON
Slot     {T/partition}, all keys
Returns  CREATED | EXISTS
Cost     O(log n), three commands
]]
if not redis.call('SET', KEYS[1], '0000000001 ' .. ARGV[2] .. ' ' .. ARGV[5], 'NX') then return 'EXISTS' end
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
return 'CREATED'
