#!lua
--[[ trans_create: store new global transactions, each unless there is one by its gid.

Why      a repeated prepare or submit must find the first one whole: record, due time and index appear in one step. The
         record is one string: a hash would take half as much again. Many in one call, because a call costs Redis more
         than a transaction, and few commands for all of them, because a command costs more than what it does; they have
         nothing to do with each other.
KEYS[1]  due zset: gid -> ms when somebody must look at it. A half millisecond marks a lease: somebody works on it
KEYS[2..] index zsets, one for each status and type that is named below: gid -> ms of creation
         then the record of each: '<version, ten digits> <status> <JSON>'
ARGV[1]  how many index zsets
ARGV[2..] for each: gid, which key is its index, ms of creation, ms when it is due, record as it is to be stored
         no due time: it came finished, nothing outside had to be called
Slot     {T/partition}, all keys
Returns  for each: 1 created | 0 there is one
Cost     O(log n) each; one command for all records, one for all due times, one for each index
]]
local first = 1 + ARGV[1]
local count = #KEYS - first
local records, names, twice = {}, {}, false
for i = 1, count do
  local key = KEYS[first + i]
  twice = twice or names[key] ~= nil
  names[key] = true
  records[2 * i - 1] = key
  records[2 * i] = ARGV[5 * i + 1]
end
-- All at once where all are new, which they mostly are. Of two of one name the first must win: one after the other then.
local all = not twice and redis.call('MSETNX', KEYS[first + 1], ARGV[6], unpack(records, 3)) == 1
local answers, due, places = {}, {}, {}
for i = 1, count do
  local at = 5 * i - 3
  if all or redis.call('SET', KEYS[first + i], ARGV[at + 4], 'NX') then
    if ARGV[at + 3] ~= '' then
      due[#due + 1] = ARGV[at + 3]
      due[#due + 1] = ARGV[at]
    end
    local place = places[ARGV[at + 1]]
    if not place then
      place = {}
      places[ARGV[at + 1]] = place
    end
    place[#place + 1] = ARGV[at + 2]
    place[#place + 1] = ARGV[at]
    answers[i] = 1
  else
    answers[i] = 0
  end
end
if #due > 0 then redis.call('ZADD', KEYS[1], unpack(due)) end
for i = 2, first do
  local place = places[tostring(i)]
  if place then redis.call('ZADD', KEYS[i], unpack(place)) end
end
return answers
