#!lua flags=allow-oom
--[[ trans_save: write what became of global transactions, each if it still is what its writer read.

Why      the version is the fence: of two nodes that both believe to hold the lease, or of a driver and a request, one
         writes and the other hears STALE and lets go. Status, due time and indexes move in the same step. Many in one
         call, because a call costs Redis more than a transaction; they have nothing to do with each other.
         allow-oom: finishing is what lets transactions leave.
KEYS[1]  due zset
KEYS[2..] index zsets, one for each status and type that is named below; that of a final status is the drain's queue
         then the record of each: '<version, ten digits> <status> <JSON>'
         then the rows hashes of those that drop theirs: branches registered since the record was made
ARGV[1]  how many index zsets
ARGV[2]  how many transactions
ARGV[3..] for each: gid, version that was read, which key is the index of the status that was read, which that of the
         status to write, ms of creation, ms when it is due again (empty when it has finished), '<status> <JSON>' with
         every branch that was read, which key are the rows to drop or 0: the record has all of them, no more are taken
Slot     {T/partition}, all keys
Returns  for each: its version now | 0 there is none | -version: it is STALE, and this is the one there
Cost     O(log n) each, at most six commands
]]
local records = 1 + ARGV[1]
local answers = {}
for i = 1, tonumber(ARGV[2]) do
  local at = 8 * i - 5
  local record = records + i
  local version = tonumber(redis.call('GETRANGE', KEYS[record], 0, 9))
  if not version then
    answers[i] = 0
  elseif version ~= tonumber(ARGV[at + 1]) then
    answers[i] = -version
  else
    redis.call('SET', KEYS[record], string.format('%010d', version + 1) .. ' ' .. ARGV[at + 6])
    if ARGV[at + 7] ~= '0' then redis.call('DEL', KEYS[tonumber(ARGV[at + 7])]) end
    if ARGV[at + 2] ~= ARGV[at + 3] then
      redis.call('ZREM', KEYS[tonumber(ARGV[at + 2])], ARGV[at])
      redis.call('ZADD', KEYS[tonumber(ARGV[at + 3])], ARGV[at + 4], ARGV[at])
    end
    if ARGV[at + 5] == '' then
      redis.call('ZREM', KEYS[1], ARGV[at])
    else
      redis.call('ZADD', KEYS[1], ARGV[at + 5], ARGV[at])
    end
    answers[i] = version + 1
  end
end
return answers
