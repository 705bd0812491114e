#!lua flags=allow-oom
--[[ sale_update: change status, window, limit or endpoint of a sale while it runs.

Why      the next batch must see either all of a change or nothing of it, and two operators at once must not undo each
         other: the change names the version it was made from. allow-oom: pausing must always be possible.
KEYS[1]  sale hash
KEYS[2]  stock hash: field `:version`, a copy of the version beside the units, so that one command reads both
ARGV[1]  version that the caller read
ARGV[2]  settings, JSON
ARGV[3]  status: open, paused or closed
ARGV[4]  opens_ms (0 = at once)
ARGV[5]  closes_ms (9007199254740991 = never)
ARGV[6]  limit per buyer, units (0 = none)
Slot     {sale/partition}, both keys
Returns  UPDATED | STALE (another change came first: read again) | CLOSED (final) | NOSALE
Cost     O(1)
]]
local sale = redis.call('HMGET', KEYS[1], 'version', 'status')
if not sale[1] then return 'NOSALE' end
if sale[1] ~= ARGV[1] then return 'STALE' end
if sale[2] == 'closed' then return 'CLOSED' end
redis.call('HLEN', KEYS[2])  -- of a wrong type it must fail here
-- Checks end here, writes begin.
redis.call('HSET', KEYS[1], 'settings', ARGV[2], 'status', ARGV[3], 'opens_ms', ARGV[4], 'closes_ms', ARGV[5],
  'limit', ARGV[6])
if ARGV[3] == 'closed' then
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'closed_ms', time[1] * 1000 + math.floor(time[2] / 1000))
end
redis.call('HSET', KEYS[2], ':version', redis.call('HINCRBY', KEYS[1], 'version', 1))
return 'UPDATED'
