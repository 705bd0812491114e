#!lua
--[[ trans_append: register branches of a prepared global transaction, each (op, branch_id) once.

Why      a branch that is registered after the decision would never be confirmed or cancelled: status, uniqueness and
         version are looked at in the step that writes. The version moves, so a decision taken without it is STALE.
KEYS[1]  record: '<version, ten digits> <status> <JSON>'
KEYS[2]  rows hash: <op>/<branch_id> -> '<place> <JSON>', place from 0 in the order of registration
ARGV[1]  status that it must have: prepared
ARGV[2]  how many branches follow
ARGV[3..] for each branch: field (<op>/<branch_id>), JSON
Slot     {T/partition}, both keys
Returns  APPENDED | SAME (exactly these are there) | CONFLICT (others of that name are there) | STATUS | GONE
Cost     O(branches)
]]
local version, status = string.match(redis.call('GETRANGE', KEYS[1], 0, 31), '^(%d+) (%a+) ')
if not version then return 'GONE' end
if status ~= ARGV[1] then return 'STATUS' end
local count = tonumber(ARGV[2])
local there, same = 0, 0
for i = 1, count do
  local row = redis.call('HGET', KEYS[2], ARGV[2 * i + 1])
  if row then
    there = there + 1
    -- The place is no part of what was asked.
    if string.sub(row, string.find(row, ' ', 1, true) + 1) == ARGV[2 * i + 2] then same = same + 1 end
  end
end
if there > 0 then return same == count and 'SAME' or 'CONFLICT' end
local place = redis.call('HLEN', KEYS[2])
for i = 1, count do
  redis.call('HSET', KEYS[2], ARGV[2 * i + 1], (place + i - 1) .. ' ' .. ARGV[2 * i + 2])
end
redis.call('SETRANGE', KEYS[1], 0, string.format('%010d', tonumber(version) + 1))
return 'APPENDED'
