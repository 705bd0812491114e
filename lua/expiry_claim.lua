#!lua flags=allow-oom
--[[ expiry_claim: take, keep or look at the right to expire the reservations of one partition.

Why      nodes that expire the same reservations do no harm, but do each other's work. Reservations of one sale last
         equally long and the intake is in the order of time, so how far it has expired is one entry id: whoever takes
         over begins there and not at the head of the stream. It is true of one run of Redis only: one that came back
         without its last second has lost the last expiries too, whatever the nodes remember, and is gone through from
         the head.
         allow-oom: expiring is what frees units and memory.
KEYS[1]  expiry hash: node, until_ms (the lease), to (id of the last entry whose orders are all dealt with),
         run (of Redis, of which `to` is true)
ARGV[1]  node
ARGV[2]  ms that the lease lasts
ARGV[3]  id of the last entry dealt with, '' to leave it; only taken from the node that holds the lease
ARGV[4]  run of Redis that the node talked to before it sent this
Slot     {sale/partition}
Returns  {ms until the lease of another node ends, 0 if it is this node's now, the id so far or '', now in ms}
Cost     O(1)
]]
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local expiry = redis.call('HMGET', KEYS[1], 'node', 'until_ms', 'to', 'run')
local left_ms = (tonumber(expiry[2]) or 0) - now_ms
if expiry[1] and expiry[1] ~= ARGV[1] and left_ms > 0 then
  return { string.format('%.0f', left_ms), expiry[3] or '', string.format('%.0f', now_ms) }
end
local to = expiry[3] or ''
if ARGV[3] ~= '' and expiry[1] == ARGV[1] then to = ARGV[3] end
if expiry[4] ~= ARGV[4] then to = '' end
redis.call('HSET', KEYS[1], 'node', ARGV[1], 'until_ms', string.format('%.0f', now_ms + ARGV[2]), 'to', to, 'run', ARGV[4])
return { '0', to, string.format('%.0f', now_ms) }
