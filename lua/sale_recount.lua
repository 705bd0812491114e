#!lua flags=allow-oom
--[[ sale_recount: take units that the records say are sold, and of which Redis knows nothing.

Why      orders that were admitted, made and recorded, and whose admission Redis has lost, are known from the records
         alone. Nothing of the sale is on its way when this is asked for, so the units in the records are those that left
         Redis for them; whoever counted names the number it found, and nothing happens if another one stands there now.
         Units that are not there any more raise `loaded`, as in order_restore.
         allow-oom: these orders were taken on long ago.
KEYS[1]  stock hash: <sku>:loaded, :available, :reserved, :sold, :archived, :seq
KEYS[2]  buyers hash: buyer -> units held or bought
ARGV[1]  n, SKUs
ARGV[2..] for each SKU: sku, units archived as they were found, units to add
         then for each buyer: buyer, units at least held or bought
Slot     {sale/partition}, both keys
Returns  DONE, and then SKU and units that were not there, for each of which that is so | STALE (others counted meanwhile)
Errors   NOCOUNT: a counter is missing or no number (a foreign hand)
Cost     O(SKUs + buyers)
]]
local skus = tonumber(ARGV[1])
local stock_new, over = {}, { 'DONE' }
for i = 2, 1 + 3 * skus, 3 do
  local sku, found, units = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local now = redis.call('HMGET', KEYS[1], sku .. ':loaded', sku .. ':available', sku .. ':reserved', sku .. ':sold',
    sku .. ':archived')
  for k = 1, 5 do
    now[k] = tonumber(now[k] or '0')
    if not now[k] then return redis.error_reply('NOCOUNT ' .. KEYS[1] .. ' ' .. sku) end
  end
  if now[5] ~= found then return { 'STALE' } end
  local missing = math.max(0, units - now[2])
  if missing > 0 then over[#over + 1], over[#over + 2] = sku, string.format('%.0f', missing) end
  local values = { now[1] + missing, now[2] + missing - units, now[3], now[4] + units, now[5] + units }
  for k, name in ipairs({ ':loaded', ':available', ':reserved', ':sold', ':archived' }) do
    stock_new[#stock_new + 1] = sku .. name
    stock_new[#stock_new + 1] = string.format('%.0f', values[k])
  end
end
local buyers_new, first = {}, 2 + 3 * skus
for i = first, #ARGV, 2 do
  local held = tonumber(redis.call('HGET', KEYS[2], ARGV[i]) or '0')
  if not held then return redis.error_reply('NOCOUNT ' .. KEYS[2]) end
  if held < tonumber(ARGV[i + 1]) then
    buyers_new[#buyers_new + 1] = ARGV[i]
    buyers_new[#buyers_new + 1] = ARGV[i + 1]
  end
end
-- Checks end here, writes begin: a script has no rollback.
for i = 1, #stock_new, 1000 do redis.call('HSET', KEYS[1], unpack(stock_new, i, math.min(i + 999, #stock_new))) end
for i = 1, #buyers_new, 1000 do redis.call('HSET', KEYS[2], unpack(buyers_new, i, math.min(i + 999, #buyers_new))) end
redis.call('HINCRBY', KEYS[1], ':seq', 1)
return over
