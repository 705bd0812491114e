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
local FIELDS = 2000  -- at once: Lua's stack takes 8000 values
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
local fields, units = {}, {}
for i = skus_at, buyers_at - 1, 3 do
  local sku, at = ARGV[i], #fields
  fields[at + 1], fields[at + 2], fields[at + 3], fields[at + 4] =
    sku .. ':reserved', sku .. ':sold', sku .. ':available', sku .. ':grown'
end
for from = 1, #fields, FIELDS do
  for i, count in ipairs(redis.call('HMGET', KEYS[1], unpack(fields, from, math.min(from + FIELDS - 1, #fields)))) do
    units[from + i - 1] = count or false
  end
end
local stock_new, held_new = {}, {}
for i = 1, #fields, 4 do
  local reserved, sold, available, grown = units[i], units[i + 1], units[i + 2], units[i + 3] or '0'
  if not (is_count(reserved) and is_count(sold) and is_count(available) and is_count(grown)) then
    return redis.error_reply('NOCOUNT ' .. KEYS[1] .. ' ' .. string.gsub(fields[i], ':reserved$', ''))
  end
  local sku_at, at = skus_at + 3 * (i - 1) / 4, #stock_new
  local sold_now, back = tonumber(ARGV[sku_at + 1]), tonumber(ARGV[sku_at + 2])
  -- Redis writes a number out exactly up to 2^53, more than there may be of anything.
  stock_new[at + 1], stock_new[at + 2] = fields[i], reserved - sold_now - back
  stock_new[at + 3], stock_new[at + 4] = fields[i + 1], sold + sold_now
  if back > 0 then
    stock_new[at + 5], stock_new[at + 6] = fields[i + 2], available + back
    stock_new[at + 7], stock_new[at + 8] = fields[i + 3], grown + 1
  end
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
for from = 1, #stock_new, FIELDS do
  redis.call('HSET', KEYS[1], unpack(stock_new, from, math.min(from + FIELDS - 1, #stock_new)))
end
for i = buyers_at, retries_at - 1, 2 do
  if held_new[i] > 0 then
    redis.call('HSET', KEYS[2], ARGV[i], string.format('%.0f', held_new[i]))
  else
    redis.call('HDEL', KEYS[2], ARGV[i])
  end
end
for i = retries_at, details_at - 1, FIELDS do
  redis.call('ZREM', KEYS[6], unpack(ARGV, i, math.min(i + FIELDS - 1, details_at - 1)))
end
local last = details_at + 2 * details - 1
for i = details_at, last, FIELDS do redis.call('HSET', KEYS[7], unpack(ARGV, i, math.min(i + FIELDS - 1, last))) end
local notice = ''
if #complete > 0 then
  redis.call('XACK', KEYS[3], 'delivery', unpack(complete))
  notice = redis.call('XADD', KEYS[5], '*', 'ids', table.concat(complete, ' '))
end
return { 'DONE', notice }
