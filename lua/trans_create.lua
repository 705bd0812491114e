#!lua
--[[ trans_create: store new global transactions, each unless there is one by its gid.

Why      a repeated prepare or submit must find the first one whole: record, due time and index appear in one step. The
         record is one string: a hash would take half as much again. Many in one call, because a call costs Redis more
         than a transaction; they have nothing to do with each other.
KEYS[1]  due zset: gid -> ms when somebody must look at it. A half millisecond marks a lease: somebody works on it
KEYS[2..] index zsets, one for each status and type that is named below: gid -> ms of creation
         then the record of each: '<version, ten digits> <status> <JSON>'
ARGV[1]  how many index zsets
ARGV[2..] for each: gid, which key is its index, ms of creation, ms when it is due, '<status> <JSON>'
         no due time: it came finished, nothing outside had to be called
Slot     {T/partition}, all keys
Returns  for each: 1 created | 0 there is one
Cost     O(log n) each, at most three commands
]]
local records = 1 + ARGV[1]
local answers = {}
for i = 1, #KEYS - records do
  local at = 5 * i - 3
  if redis.call('SET', KEYS[records + i], '0000000001 ' .. ARGV[at + 4], 'NX') then
    if ARGV[at + 3] ~= '' then redis.call('ZADD', KEYS[1], ARGV[at + 3], ARGV[at]) end
    redis.call('ZADD', KEYS[tonumber(ARGV[at + 1])], ARGV[at + 2], ARGV[at])
    answers[i] = 1
  else
    answers[i] = 0
  end
end
return answers
