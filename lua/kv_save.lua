#!lua
--[[ kv_save: write one named value, if it still has the version that was read.

Why      two nodes may change the subscribers of a topic at the same time; the later one must read again, not overwrite.
KEYS[1]  the category's hash: key -> JSON with the version in front: '<version> <JSON>'
ARGV[1]  key
ARGV[2]  version that was read; 0 = it must not be there
ARGV[3]  JSON; empty = delete
Slot     {T/kv}
Returns  SAVED | STALE
Cost     O(1)
]]
local there = redis.call('HGET', KEYS[1], ARGV[1])
local version = there and string.match(there, '^%d+') or '0'
if version ~= ARGV[2] then return 'STALE' end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%d', tonumber(version) + 1) .. ' ' .. ARGV[3])
end
return 'SAVED'
