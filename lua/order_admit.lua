#!lua
--[[ order_admit: decide a batch of order requests; take the units of those that win.

Why      stock, the buyer's limit, the replay of an earlier answer and the two-phase message change in one step, or
         two buyers see the last unit, or a unit is taken for an order that nobody will ever make.
KEYS[1]  sale hash: status, opens_ms, closes_ms, limit, version
KEYS[2]  stock hash: <sku>:available, <sku>:reserved (units)
KEYS[3]  requests hash: digest of the idempotency key -> body digest (8 bytes), address (12 bytes: entry id as u48 ms
         and u32 sequence, u16 index). Packed, because it is kept for every order of the sale
KEYS[4]  buyers hash: buyer -> units held or bought
KEYS[5]  intake stream: one entry = this batch's admitted orders
KEYS[6]  outcome hash: entry id -> one character an order, '.' = not ended
ARGV[1]  node, the consumer that will deliver
ARGV[2]  n, order requests in the batch
ARGV[3]  m, different SKUs in the batch
ARGV[4]  items, packed: for each request a byte (how many), then for each item u16 (which SKU, from 1), u32 (quantity)
ARGV[5]  '1' if a batch of nothing but replays must still write, so that WAIT has something to wait for; else '0'
ARGV[6..] m SKUs, then n key digests ('' = no key), n body digests, n buyers, n frames (what the entry keeps)
Slot     {sale/partition}, all keys
Returns  {codes, entry id or '', settings version, address (12 bytes) of the 1st replay, of the 2nd, …}
         codes, one letter a request: A admitted (its index in the entry: how many A came before), R replayed,
         K key reused, N not open, P paused, C closed, U unknown SKU, L limit reached, S sold out
Errors   NOSALE: there is no such sale (a caller's mistake, not an outcome)
         NOCOUNT: the version is missing or no number; NOGROUP: the stream has no group (a foreign hand)
Cost     O(n) with a dozen commands a batch; a losing request costs its two look-ups and writes nothing
]]
local node, n, m = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local items, must_write = ARGV[4], ARGV[5] == '1'
local skus = 5
local keys = skus + m
local digests, buyers, frames = keys + n, keys + 2 * n, keys + 3 * n

local sale = redis.call('HMGET', KEYS[1], 'status', 'opens_ms', 'closes_ms', 'limit', 'version')
if not sale[1] then return redis.error_reply('NOSALE ' .. KEYS[1]) end
local time = redis.call('TIME')  -- one clock for all nodes: nobody opens a sale early
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local limit = tonumber(sale[4])
if not string.find(sale[5] or '', '^%d+$') then return redis.error_reply('NOCOUNT ' .. KEYS[1] .. ' version') end
local closed_code
if sale[1] == 'closed' or now_ms >= tonumber(sale[3]) then closed_code = 'C'
elseif sale[1] == 'paused' then closed_code = 'P'
elseif now_ms < tonumber(sale[2]) then closed_code = 'N' end

local fields = {}
for i = 1, m do
  fields[2 * i - 1] = ARGV[skus + i] .. ':available'
  fields[2 * i] = ARGV[skus + i] .. ':reserved'
end
local stock = redis.call('HMGET', KEYS[2], unpack(fields))
local available, reserved = {}, {}
for i = 1, m do
  available[i], reserved[i] = tonumber(stock[2 * i - 1]), tonumber(stock[2 * i])
end
local earlier = redis.call('HMGET', KEYS[3], unpack(ARGV, keys + 1, keys + n))
local held = redis.call('HMGET', KEYS[4], unpack(ARGV, buyers + 1, buyers + n))

local byte, sub, pack, unpack_item = string.byte, string.sub, struct.pack, struct.unpack
local codes, replays, written = {}, {}, {}
local units_of = {}                            -- buyer -> units, as this batch has decided so far
local fresh, keyed, index_of = {}, {}, {}      -- key -> request that won with it; those requests; their index
local item_sku, item_quantity = {}, {}
local winners, wins_keyed, at = 0, 0, 1
for i = 1, n do
  local key = ARGV[keys + i]
  local count = byte(items, at)
  local first = at + 1
  at = first + 6 * count
  local twin, before = fresh[key], earlier[i]
  if twin or before then  -- ahead of the window and the stock: whoever won hears so, also after sell-out
    if (twin and ARGV[digests + twin] or sub(before, 1, 8)) == ARGV[digests + i] then
      codes[i] = 'R'
      replays[#replays + 1] = twin and pack('>H', index_of[twin]) or sub(before, 9)
    else
      codes[i] = 'K'
    end
  elseif closed_code then
    codes[i] = closed_code
  else
    local buyer, units, code = ARGV[buyers + i], 0, 'A'
    for k = 1, count do
      local sku, quantity = unpack_item('>HI4', items, first + 6 * (k - 1))
      item_sku[k], item_quantity[k] = sku, quantity
      units = units + quantity
      if not available[sku] then code = 'U' break end
      if available[sku] < quantity then code = 'S' end
    end
    local total = (units_of[buyer] or tonumber(held[i]) or 0) + units
    if limit > 0 and total > limit and code ~= 'U' then code = 'L' end
    codes[i] = code
    if code == 'A' then
      for k = 1, count do
        local sku, quantity = item_sku[k], item_quantity[k]
        available[sku] = available[sku] - quantity
        reserved[sku] = reserved[sku] + quantity
      end
      units_of[buyer] = total
      if key ~= '' then
        wins_keyed = wins_keyed + 1
        keyed[wins_keyed], index_of[i], fresh[key] = i, winners, i
      end
      winners = winners + 1
      written[winners] = ARGV[frames + i]
    end
  end
end

local id, id_packed = '', ''
if winners > 0 then
  -- Of a wrong type, or without its group, they must fail here; the other keys were read above.
  redis.call('XPENDING', KEYS[5], 'delivery', '-', '-', 1)
  redis.call('HLEN', KEYS[6])
  -- Checks end here, writes begin: a script has no rollback.
  id = redis.call('XADD', KEYS[5], '*', 'v1', table.concat(written))
  redis.call('XCLAIM', KEYS[5], 'delivery', node, 0, id, 'FORCE', 'JUSTID')
  redis.call('HSET', KEYS[6], id, string.rep('.', winners))
  local ms, sequence = string.match(id, '^(%d+)-(%d+)$')
  id_packed = pack('>I6I4', tonumber(ms), tonumber(sequence))
  if wins_keyed > 0 then
    local requests_new = {}
    for k = 1, wins_keyed do
      local i = keyed[k]
      requests_new[2 * k - 1] = ARGV[keys + i]
      requests_new[2 * k] = ARGV[digests + i] .. id_packed .. pack('>H', index_of[i])
    end
    redis.call('HSET', KEYS[3], unpack(requests_new))
  end
  local buyers_new, filled, text_of = {}, 0, {}
  for buyer, total in pairs(units_of) do
    -- Most totals are alike, and turning a number into text is what costs here.
    local text = text_of[total] or string.format('%.0f', total)
    text_of[total] = text
    buyers_new[filled + 1], buyers_new[filled + 2] = buyer, text
    filled = filled + 2
  end
  redis.call('HSET', KEYS[4], unpack(buyers_new))
  local stock_new = {}
  for i = 1, m do
    if available[i] then
      stock_new[#stock_new + 1] = fields[2 * i - 1]
      stock_new[#stock_new + 1] = string.format('%.0f', available[i])
      stock_new[#stock_new + 1] = fields[2 * i]
      stock_new[#stock_new + 1] = string.format('%.0f', reserved[i])
    end
  end
  redis.call('HSET', KEYS[2], unpack(stock_new))
elseif must_write and #replays > 0 then
  redis.call('HINCRBY', KEYS[1], 'replays', #replays)
end
local reply = { table.concat(codes), id, sale[5] }
for i, replay in ipairs(replays) do
  reply[3 + i] = #replay == 2 and id_packed .. replay or replay  -- two bytes: an order of this very batch
end
return reply
