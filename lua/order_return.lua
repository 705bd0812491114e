#!lua flags=allow-oom
--[[ order_return: units that were sold come back on sale, exactly once for each request.

Why      the count of what came back and the stock change in one step, and never more comes back than was sold; who
         hears nothing asks again, and must hear the first answer. It works for an order that has long left for the
         records too: what was sold of it never changes, so the caller brings it along.
         allow-oom: it takes on nothing that was not there before.
KEYS[1]  stock hash: <sku>:available, :sold, :returned (units), :grown (how often units came back or came in); :seq
KEYS[2]  returns hash: <entry id>.<index> -> 'sku units sku units …' all that came back of this order;
         <entry id>.<index>/<request id> -> what that request asked for. It stays as long as the sale
KEYS[3]  returned stream: <entry id>.<index>, orders whose record must be told
KEYS[4]  buyers hash: buyer -> units held or bought
KEYS[5]  limits hash: <limit>:<value> -> units held or bought under a limit of the sale
ARGV[1]  <entry id>.<index>
ARGV[2]  request id
ARGV[3]  what is asked, in one spelling: 'sku units sku units …'
ARGV[4]  'skus buyers limits', three counts; the latter two are 0 where a return does not count for the limits
ARGV[5..] for each SKU of the order: sku, units sold, units that come back now (0 and more)
         then for each buyer: buyer, units; for each limit: field, units
Slot     {sale/partition}, all keys
Returns  {RETURNED | DUPLICATE, all that came back} | {REUSED, …} (that id asked for something else)
         | {TOOMANY, all that came back, the SKU}
Errors   NOCOUNT: a counter is missing or no number (a foreign hand)
Cost     O(SKUs)
]]
local address, request = ARGV[1], ARGV[1] .. '/' .. ARGV[2]
local counts = {}
for number in string.gmatch(ARGV[4], '%d+') do counts[#counts + 1] = tonumber(number) end
local skus, buyers, limits = unpack(counts)
local earlier = redis.call('HMGET', KEYS[2], address, request)
local all = earlier[1] or ''
if earlier[2] then return { earlier[2] == ARGV[3] and 'DUPLICATE' or 'REUSED', all } end
local back = {}
for sku, units in string.gmatch(all, '(%S+) (%d+)') do back[sku] = tonumber(units) end
local function is_count(text) return text and string.find(text, '^%-?%d+$') end
local texts = {}
for i = 5, 4 + 3 * skus, 3 do
  local sku, sold, units = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local total = (back[sku] or 0) + units
  if total > sold then return { 'TOOMANY', all, sku } end
  if total > 0 then texts[#texts + 1] = sku .. ' ' .. string.format('%.0f', total) end
  local counters = redis.call('HMGET', KEYS[1], sku .. ':available', sku .. ':sold')
  if not (is_count(counters[1]) and is_count(counters[2])) then
    return redis.error_reply('NOCOUNT ' .. KEYS[1] .. ' ' .. sku)
  end
  for _, counter in ipairs(redis.call('HMGET', KEYS[1], sku .. ':returned', sku .. ':grown')) do
    if counter and not is_count(counter) then return redis.error_reply('NOCOUNT ' .. KEYS[1] .. ' ' .. sku) end
  end
end
redis.call('XLEN', KEYS[3])
local held = {}
local limits_at = 5 + 3 * skus + 2 * buyers
for i = 5 + 3 * skus, limits_at + 2 * limits - 1, 2 do
  held[i] = i < limits_at and redis.call('HGET', KEYS[4], ARGV[i]) or redis.call('HGET', KEYS[5], ARGV[i])
  if held[i] and not is_count(held[i]) then return redis.error_reply('NOCOUNT ' .. ARGV[i]) end
end

-- Checks end here, writes begin: a script has no rollback.
all = table.concat(texts, ' ')
redis.call('HSET', KEYS[2], address, all, request, ARGV[3])
for i = 5, 4 + 3 * skus, 3 do
  if ARGV[i + 2] ~= '0' then
    redis.call('HINCRBY', KEYS[1], ARGV[i] .. ':available', ARGV[i + 2])
    redis.call('HINCRBY', KEYS[1], ARGV[i] .. ':sold', '-' .. ARGV[i + 2])
    redis.call('HINCRBY', KEYS[1], ARGV[i] .. ':returned', ARGV[i + 2])
    redis.call('HINCRBY', KEYS[1], ARGV[i] .. ':grown', 1)
  end
end
for i = 5 + 3 * skus, limits_at + 2 * limits - 1, 2 do
  if held[i] then  -- a ledger that is forgotten stays so
    local left = math.max(held[i] - ARGV[i + 1], 0)
    if i < limits_at then
      redis.call('HSET', KEYS[4], ARGV[i], string.format('%.0f', left))
    else
      redis.call('HSET', KEYS[5], ARGV[i], string.format('%.0f', left))
    end
  end
end
redis.call('HINCRBY', KEYS[1], ':seq', 1)
redis.call('XADD', KEYS[3], '*', 'v1', address)
return { 'RETURNED', all }
