#!lua flags=allow-oom
--[[ trans_save: write what became of a global transaction, if it still is what the writer read.

Why      the version is the fence: of two nodes that both believe to hold the lease, or of a driver and a request, one
         writes and the other hears STALE and lets go. Status, due time and indexes move in the same step.
         allow-oom: finishing is what lets transactions leave.
KEYS[1]  the transaction's hash
KEYS[2]  due zset
KEYS[3]  index zset of the status that was read
KEYS[4]  index zset of the status to write; the same key if it does not change
KEYS[5]  finished stream: gids for the drain
ARGV[1]  gid
ARGV[2]  version that was read
ARGV[3]  status
ARGV[4]  ms of creation
ARGV[5]  ms when it is due again; empty when it has finished
ARGV[6]  record, JSON, with every branch that was read
ARGV[7]  fields of registered branches to drop: the record has them, and no more are taken. Separated by newlines
Slot     {T/partition}, all keys
Returns  {'SAVED', version now} | {'STALE', version there} | {'GONE'}
Cost     O(log n + fields), at most eight commands
]]
local version = redis.call('HGET', KEYS[1], 'v')
if not version then return { 'GONE' } end
if version ~= ARGV[2] then return { 'STALE', version } end
local next_version = string.format('%d', tonumber(version) + 1)
redis.call('HSET', KEYS[1], 'v', next_version, 's', ARGV[3], 'g', ARGV[6])
for field in string.gmatch(ARGV[7], '[^\n]+') do redis.call('HDEL', KEYS[1], field) end
if KEYS[3] ~= KEYS[4] then
  redis.call('ZREM', KEYS[3], ARGV[1])
  redis.call('ZADD', KEYS[4], ARGV[4], ARGV[1])
end
if ARGV[5] == '' then
  redis.call('ZREM', KEYS[2], ARGV[1])
  redis.call('XADD', KEYS[5], '*', 'gid', ARGV[1])
else
  redis.call('ZADD', KEYS[2], ARGV[5], ARGV[1])
end
return { 'SAVED', next_version }
