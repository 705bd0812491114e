#!lua flags=allow-oom
--[[ trans_save: write what became of global transactions, each if it still is what its writer read.

Why      the version is the fence: of two nodes that both believe to hold the lease, or of a driver and a request, one
         writes and the other hears STALE and lets go. Status, due time and indexes move in the same step. Many in one
         call, because a call costs Redis more than a transaction, and few commands for all of them, because a command
         costs more than what it does; they have nothing to do with each other.
         allow-oom: finishing is what lets transactions leave.
KEYS[1]  due zset
KEYS[2..] index zsets, one for each status and type that is named below; that of a final status is the drain's queue
         then the record of each: '<version, ten digits> <status> <JSON>'
         then the rows hashes of those that drop theirs: branches registered since the record was made
ARGV[1]  how many index zsets
ARGV[2]  how many transactions
ARGV[3..] for each: gid, version that was read (ten digits), which key is the index of the status that was read, which
         that of the status to write, ms of creation, ms when it is due again (empty when it has finished), the record as
         it is to be stored, of the next version, with every branch that was read, which key are the rows to drop or 0:
         the record has all of them, no more are taken
Slot     {T/partition}, all keys
Returns  for each: its version now | 0 there is none | -version: it is STALE, and this is the one there
Cost     O(log n) each; two commands for all records, two for all due times, two for each index
]]
local first = 1 + ARGV[1]
local count = tonumber(ARGV[2])
local there = redis.call('MGET', KEYS[first + 1], unpack(KEYS, first + 2, first + count))
local answers, written, head = {}, {}, nil
local records, rows, due, over, leaves, enters = {}, {}, {}, {}, {}, {}
local function push(lists, name, value)
  local list = lists[name]
  if not list then
    list = {}
    lists[name] = list
  end
  list[#list + 1] = value
end
for i = 1, count do
  local at = 8 * i - 5
  local key = KEYS[first + i]
  -- Another write of it in this very call counts as well: what is there was read before all of them.
  local version = written[key] or (there[i] and string.sub(there[i], 1, 10))
  if not version then
    answers[i] = 0
  elseif version ~= ARGV[at + 1] then
    answers[i] = -tonumber(version)
  else
    local gid = ARGV[at]
    written[key] = string.sub(ARGV[at + 6], 1, 10)
    answers[i] = tonumber(written[key])
    if not head then head = first + i end
    records[#records + 1] = key
    records[#records + 1] = ARGV[at + 6]
    if ARGV[at + 7] ~= '0' then rows[#rows + 1] = tonumber(ARGV[at + 7]) end
    if ARGV[at + 2] ~= ARGV[at + 3] then
      push(leaves, ARGV[at + 2], gid)
      push(enters, ARGV[at + 3], ARGV[at + 4])
      push(enters, ARGV[at + 3], gid)
    end
    if ARGV[at + 5] == '' then
      over[#over + 1] = gid
    else
      due[#due + 1] = ARGV[at + 5]
      due[#due + 1] = gid
    end
  end
end
-- Checks end here, writes begin.
if not head then return answers end
redis.call('MSET', KEYS[head], unpack(records, 2))
for i = 1, #rows do redis.call('DEL', KEYS[rows[i]]) end
for i = 2, first do
  local name = tostring(i)
  if leaves[name] then redis.call('ZREM', KEYS[i], unpack(leaves[name])) end
  if enters[name] then redis.call('ZADD', KEYS[i], unpack(enters[name])) end
end
if #over > 0 then redis.call('ZREM', KEYS[1], unpack(over)) end
if #due > 0 then redis.call('ZADD', KEYS[1], unpack(due)) end
return answers
