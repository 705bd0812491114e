#!lua flags=allow-oom
--[[ order_finish: note what became of delivered orders, and move their units.

Why      an order's end and its units move in one step: created = reserved -> sold, refused = reserved -> available and
         the buyer's units go back. The sums come from the node that delivered, so the step first compares what it
         knows with what is written: if anything differs, nothing happens and the node adds up anew.
         allow-oom: ending orders is what frees memory.
KEYS[1]  stock hash: <sku>:available, :reserved, :sold (units)
KEYS[2]  buyers hash: buyer -> units held or bought
KEYS[3]  intake stream
KEYS[4]  outcome hash: entry id -> one character an order: '.' not ended, 's' succeed, 'f' failed
KEYS[5]  finished stream: ids of entries whose orders have all ended
KEYS[6]  retry zset: <entry id>.<index> -> due ms
KEYS[7]  detail hash: <entry id>.<index> -> JSON, for orders with more to say than one character
ARGV[1]  numbers as JSON-free text: 'entries skus buyers retries details', five counts
ARGV[2..] for each entry: id, outcome expected, outcome new
         then for each SKU: sku, units sold, units back
         then for each buyer whose units go back: buyer, units
         then each <entry id>.<index> that was waiting for a retry
         then for each detail: <entry id>.<index>, JSON
Slot     {sale/partition}, all keys
Returns  {'DONE'} or {'STALE', id, outcome as written or '' if the entry is gone, …} for each entry that differs
Cost     O(entries + SKUs + buyers), about six commands
]]
local counts = {}
for number in string.gmatch(ARGV[1], '%d+') do counts[#counts + 1] = tonumber(number) end
local entries, skus, buyers, retries, details = unpack(counts)
local ids = {}
for i = 1, entries do ids[i] = ARGV[3 * i - 1] end
local written = redis.call('HMGET', KEYS[4], unpack(ids))
local stale = { 'STALE' }
for i = 1, entries do
  if written[i] ~= ARGV[3 * i] then
    stale[#stale + 1] = ids[i]
    stale[#stale + 1] = written[i] or ''
  end
end
if #stale > 1 then return stale end

-- Checks end here, writes begin.
local outcomes, complete = {}, {}
for i = 1, entries do
  outcomes[2 * i - 1], outcomes[2 * i] = ids[i], ARGV[3 * i + 1]
  if not string.find(ARGV[3 * i + 1], '.', 1, true) then complete[#complete + 1] = ids[i] end
end
redis.call('HSET', KEYS[4], unpack(outcomes))
local at = 2 + 3 * entries
for i = at, at + 3 * skus - 1, 3 do
  local sku, sold, back = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  redis.call('HINCRBY', KEYS[1], sku .. ':reserved', -(sold + back))
  if sold > 0 then redis.call('HINCRBY', KEYS[1], sku .. ':sold', sold) end
  if back > 0 then redis.call('HINCRBY', KEYS[1], sku .. ':available', back) end
end
at = at + 3 * skus
for i = at, at + 2 * buyers - 1, 2 do
  local left = redis.call('HINCRBY', KEYS[2], ARGV[i], -tonumber(ARGV[i + 1]))
  if left <= 0 then redis.call('HDEL', KEYS[2], ARGV[i]) end
end
at = at + 2 * buyers
if retries > 0 then redis.call('ZREM', KEYS[6], unpack(ARGV, at, at + retries - 1)) end
at = at + retries
if details > 0 then redis.call('HSET', KEYS[7], unpack(ARGV, at, at + 2 * details - 1)) end
if #complete > 0 then
  redis.call('XACK', KEYS[3], 'delivery', unpack(complete))
  redis.call('XADD', KEYS[5], '*', 'ids', table.concat(complete, ' '))
end
return { 'DONE' }
