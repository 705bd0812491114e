#!lua flags=allow-oom
--[[ trans_save: write what became of a global transaction, if it still is what the writer read.

Why      the version is the fence: of two nodes that both believe to hold the lease, or of a driver and a request, one
         writes and the other hears STALE and lets go. Status, due time and indexes move in the same step.
         allow-oom: finishing is what lets transactions leave.
KEYS[1]  record: '<version, ten digits> <status> <JSON>'
KEYS[2]  rows hash: branches registered since the record was made
KEYS[3]  due zset
KEYS[4]  index zset of the status that was read
KEYS[5]  index zset of the status to write; the same key if it does not change. That of a final one is the drain's queue
ARGV[1]  gid
ARGV[2]  version that was read
ARGV[3]  status
ARGV[4]  ms of creation
ARGV[5]  ms when it is due again; empty when it has finished
ARGV[6]  JSON, with every branch that was read
ARGV[7]  1 to drop the rows hash: the record has all of it, and no more are taken
Slot     {T/partition}, all keys
Returns  {'SAVED', version now} | {'STALE', version there} | {'GONE'}
Cost     O(log n), at most six commands
]]
local version = tonumber(redis.call('GETRANGE', KEYS[1], 0, 9))
if not version then return { 'GONE' } end
if version ~= tonumber(ARGV[2]) then return { 'STALE', version } end
redis.call('SET', KEYS[1], string.format('%010d', version + 1) .. ' ' .. ARGV[3] .. ' ' .. ARGV[6])
if ARGV[7] == '1' then redis.call('DEL', KEYS[2]) end
if KEYS[4] ~= KEYS[5] then
  redis.call('ZREM', KEYS[4], ARGV[1])
  redis.call('ZADD', KEYS[5], ARGV[4], ARGV[1])
end
if ARGV[5] == '' then
  redis.call('ZREM', KEYS[3], ARGV[1])
else
  redis.call('ZADD', KEYS[3], ARGV[5], ARGV[1])
end
return { 'SAVED', version + 1 }
