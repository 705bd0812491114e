#!lua flags=allow-oom
--[[ order_finish: note what became of delivered orders, and move their units.

Why      an order's end and its units move in one step: created = reserved -> sold, refused = reserved -> available and
         the buyer's units go back. The sums come from the node that delivered, so the step first compares what it
         knows with what is written: if anything differs, nothing happens and the node adds up anew.
         allow-oom: ending orders is what frees memory.
KEYS[1]  stock hash: <sku>:available, :reserved, :sold (units), :grown (how often units came back or came in)
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
Returns  {'DONE', id of the notice in the finished stream or ''} or {'STALE', id, outcome as written or '' if the entry is gone, …} for each entry that differs
Errors   NOCOUNT: a counter is missing or no number (a foreign hand)
Cost     O(entries + SKUs + buyers), about eight commands
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

-- What follows is read before anything is written: a key of a wrong type or a counter that is none must fail here.
local function is_count(text) return text and string.find(text, '^%-?%d+$') end
local skus_at = 2 + 3 * entries
local buyers_at = skus_at + 3 * skus
local retries_at = buyers_at + 2 * buyers
local details_at = retries_at + retries
local stock_new, held_new = {}, {}
for i = skus_at, buyers_at - 1, 3 do
  local sku, sold, back = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local units = redis.call('HMGET', KEYS[1], sku .. ':reserved', sku .. ':sold', sku .. ':available',
    sku .. ':grown')
  if not (is_count(units[1]) and is_count(units[2]) and is_count(units[3]) and is_count(units[4] or '0')) then
    return redis.error_reply('NOCOUNT ' .. KEYS[1] .. ' ' .. sku)
  end
  stock_new[#stock_new + 1] = { sku .. ':reserved', string.format('%.0f', units[1] - sold - back),
    sku .. ':sold', string.format('%.0f', units[2] + sold), sku .. ':available', string.format('%.0f', units[3] + back),
    back > 0 and sku .. ':grown' or nil, back > 0 and string.format('%.0f', (units[4] or 0) + 1) or nil }
end
for i = buyers_at, retries_at - 1, 2 do
  local held = redis.call('HGET', KEYS[2], ARGV[i])
  if held and not is_count(held) then return redis.error_reply('NOCOUNT ' .. KEYS[2]) end
  held_new[i] = (held or 0) - ARGV[i + 1]
end
redis.call('XLEN', KEYS[3])
redis.call('XLEN', KEYS[5])
if retries > 0 then redis.call('ZCARD', KEYS[6]) end
if details > 0 then redis.call('HLEN', KEYS[7]) end

-- Checks end here, writes begin: a script has no rollback.
local outcomes, complete = {}, {}
for i = 1, entries do
  outcomes[2 * i - 1], outcomes[2 * i] = ids[i], ARGV[3 * i + 1]
  if not string.find(ARGV[3 * i + 1], '.', 1, true) then complete[#complete + 1] = ids[i] end
end
redis.call('HSET', KEYS[4], unpack(outcomes))
for _, units in ipairs(stock_new) do redis.call('HSET', KEYS[1], unpack(units)) end
for i = buyers_at, retries_at - 1, 2 do
  if held_new[i] > 0 then
    redis.call('HSET', KEYS[2], ARGV[i], string.format('%.0f', held_new[i]))
  else
    redis.call('HDEL', KEYS[2], ARGV[i])
  end
end
-- A thousand at a time: Lua's stack takes 8000 values.
for i = retries_at, details_at - 1, 1000 do
  redis.call('ZREM', KEYS[6], unpack(ARGV, i, math.min(i + 999, details_at - 1)))
end
local last = details_at + 2 * details - 1
for i = details_at, last, 1000 do redis.call('HSET', KEYS[7], unpack(ARGV, i, math.min(i + 999, last))) end
local notice = ''
if #complete > 0 then
  redis.call('XACK', KEYS[3], 'delivery', unpack(complete))
  notice = redis.call('XADD', KEYS[5], '*', 'ids', table.concat(complete, ' '))
end
return { 'DONE', notice }
