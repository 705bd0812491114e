#!lua flags=allow-oom
--[[ trans_drained: the records hold these finished transactions durably; forget them here, but for a word each.

Why      record and index entry go in one step, so that a transaction is listed here or is in the records, at every
         moment. Only what still is what was written goes: the version says so, and what is over never changes.
         In the record's place stays what later calls on the same gid must hear, for a while.
         allow-oom: this is what frees memory.
KEYS[1]  index zset of these transactions' status and type: gid -> ms of creation
KEYS[2..] their records: '<version, ten digits> <status> …'
ARGV[1]  ms that the word is kept; 0: none is left
ARGV[2..] for each record: gid, version that was written to the records (ten digits), the word
Slot     {T/partition}, all keys
Returns  how many left the index
Cost     O(records * log n), two commands each and one more
]]
local gone = {}
for i = 1, #KEYS - 1 do
  local gid, version, word = ARGV[3 * i - 1], ARGV[3 * i], ARGV[3 * i + 1]
  local there = redis.call('GETRANGE', KEYS[i + 1], 0, 9)
  if there == version then
    if ARGV[1] == '0' then
      redis.call('DEL', KEYS[i + 1])
    else
      redis.call('SET', KEYS[i + 1], word, 'PX', ARGV[1])
    end
  end
  -- A record that is gone without its index entry is nobody's work: without this it would be looked at for ever.
  if there == version or there == '' then gone[#gone + 1] = gid end
end
if #gone == 0 then return 0 end
return redis.call('ZREM', KEYS[1], unpack(gone))
