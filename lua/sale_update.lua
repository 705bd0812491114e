#!lua flags=allow-oom
--[[ sale_update: change status, window, limit or endpoint of a sale while it runs, once per request id.

Why      the next batch must see either all of a change or nothing of it, and two operators at once must not undo each
         other: the change names the version it was made from. Who changed what, and why, is noted in the same step.
         allow-oom: pausing must always be possible.
KEYS[1]  sale hash
KEYS[2]  stock hash: field `:version`, a copy of the version beside the units, so that one command reads both; :seq
KEYS[3]  changes hash: request id -> what it asked for
KEYS[4]  log stream: the last changes, one entry each
ARGV[1]  version that the caller read
ARGV[2]  settings, JSON
ARGV[3]  status: open, paused or closed
ARGV[4]  opens_ms (0 = at once)
ARGV[5]  closes_ms (9007199254740991 = never)
ARGV[6]  limit per buyer, units (0 = none)
ARGV[7]  request id ('' = none)
ARGV[8]  what is changed, JSON: for the log, and to tell a repeated request from another one of that id
ARGV[9]  who
ARGV[10] why
ARGV[11] most entries of the log
Slot     {sale/partition}, all keys
Returns  UPDATED | DUPLICATE (this request was carried out before) | REUSED (that id asked for something else)
         | STALE (another change came first: read again) | CLOSED (final) | NOSALE
Cost     O(1)
]]
local request, what = ARGV[7], ARGV[8]
local sale = redis.call('HMGET', KEYS[1], 'version', 'status')
if not sale[1] then return 'NOSALE' end
local asked = 'settings ' .. redis.sha1hex(what)
local earlier = request ~= '' and redis.call('HGET', KEYS[3], request)
if earlier then return earlier == asked and 'DUPLICATE' or 'REUSED' end
if sale[1] ~= ARGV[1] then return 'STALE' end
if sale[2] == 'closed' then return 'CLOSED' end
-- Of a wrong type they must fail here.
redis.call('HLEN', KEYS[2])
redis.call('HLEN', KEYS[3])
redis.call('XLEN', KEYS[4])
-- Checks end here, writes begin.
redis.call('HSET', KEYS[1], 'settings', ARGV[2], 'status', ARGV[3], 'opens_ms', ARGV[4], 'closes_ms', ARGV[5],
  'limit', ARGV[6])
if ARGV[3] == 'closed' then
  local time = redis.call('TIME')
  redis.call('HSET', KEYS[1], 'closed_ms', time[1] * 1000 + math.floor(time[2] / 1000))
end
redis.call('HSET', KEYS[2], ':version', redis.call('HINCRBY', KEYS[1], 'version', 1))
redis.call('HINCRBY', KEYS[2], ':seq', 1)
if request ~= '' then redis.call('HSET', KEYS[3], request, asked) end
redis.call('XADD', KEYS[4], 'MAXLEN', ARGV[11], '*', 'kind', 'settings', 'what', what, 'who', ARGV[9], 'why', ARGV[10],
  'request_id', request)
return 'UPDATED'
