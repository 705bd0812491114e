#!lua
--[[ order_admit: decide a batch of order requests; take the units of those that win.

Why      stock, the buyer's limit, the replay of an earlier answer and the two-phase message change in one step, or
         two buyers see the last unit, or a unit is taken for an order that nobody will ever make.
KEYS[1]  sale hash: status, opens_ms, closes_ms, limit, version, partitions (none = 1)
KEYS[2]  stock hash: <sku>:available, <sku>:reserved (units); :seq (counts what was told of), :term (who may sell)
KEYS[3]  requests hash: digest of the idempotency key -> body digest (8 bytes), address (12 bytes: entry id as u48 ms
         and u32 sequence, u16 index). Packed, because it is kept for every order of the sale
KEYS[4]  buyers hash: buyer -> units held or bought
KEYS[5]  intake stream: one entry = this batch's admitted orders
KEYS[6]  outcome hash: entry id -> one character an order, '.' = not ended
KEYS[7]  limits hash: <limit>:<value> -> units held or bought under a further limit of the sale
ARGV[1]  node, the consumer that will deliver
ARGV[2]  n, order requests in the batch
ARGV[3]  m, different SKUs in the batch
ARGV[4]  items, packed: for each request a byte (how many), then for each item u16 (which SKU, from 1), u32 (quantity)
ARGV[5]  '1' if a batch of nothing but replays must still write, so that WAIT has something to wait for; else '0'.
         In a sale of several partitions then a blank and their number, by which the requests were routed here, and for
         requests of visitors a blank and one digit a request: 1 = its buyer's home is elsewhere by now, and it is here
         only if the ledger is
ARGV[6]  body digests, packed: 8 bytes a request
ARGV[7]  frames (what the entry keeps), one after the other: usually all win, and nobody need take them apart
ARGV[8]  sizes of the frames, packed: u32 each
ARGV[9]  term that the node believes in: another one here is a fence, a repair, or a run of Redis not yet looked at
ARGV[10..] m SKUs, then n key digests ('' = no key), then n buyers; and where the sale has further limits:
         packed, for each request a byte (how many), then for each u16 (which field, from 1), u32 (units), u32 (most);
         then the fields of the limits hash
Slot     {sale/partition}, all keys
Returns  {codes, entry id or '', 'version seq' (of the settings; of this step), address (12 bytes) of the 1st replay, of the 2nd, …}
         codes, one letter a request: A admitted (its index in the entry: how many A came before), R replayed,
         K key reused, N not open, P paused, C closed, U unknown SKU, L limit reached, S sold out,
         M to be routed anew: the sale has another number of partitions, or a visitor's ledger is not here,
         F over a further limit, E another term: nobody was decided about
Errors   NOSALE: there is no such sale (a caller's mistake, not an outcome)
         NOCOUNT: the version is missing or no number; NOGROUP: the stream has no group (a foreign hand)
Cost     O(n) with a dozen commands a batch; a losing request costs its two look-ups and writes nothing
]]
local node, n, m = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local items, must_write, bodies = ARGV[4], string.byte(ARGV[5]) == 49, ARGV[6]
local partitions, visitors = string.match(ARGV[5], '^. (%d+) ?(%d*)$')
local skus = 9
local keys = skus + m
local buyers = keys + n
local limited, fields_at = ARGV[buyers + n + 1], buyers + n + 1  -- nil where there are no further limits: nothing is done for them

local sale = redis.call('HMGET', KEYS[1], 'status', 'opens_ms', 'closes_ms', 'limit', 'version', 'partitions')
if not sale[1] then return redis.error_reply('NOSALE ' .. KEYS[1]) end
local time = redis.call('TIME')  -- one clock for all nodes: nobody opens a sale early
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local limit = tonumber(sale[4])
if not string.find(sale[5] or '', '^%d+$') then return redis.error_reply('NOCOUNT ' .. KEYS[1] .. ' version') end
if (partitions or '1') ~= (sale[6] or '1') then return { string.rep('M', n), '', sale[5] .. ' 0' } end
if visitors == '' then visitors = nil end
local closed_code
if sale[1] == 'closed' or now_ms >= tonumber(sale[3]) then closed_code = 'C'
elseif sale[1] == 'paused' then closed_code = 'P'
elseif now_ms < tonumber(sale[2]) then closed_code = 'N' end

local fields = {}
for i = 1, m do
  fields[2 * i - 1] = ARGV[skus + i] .. ':available'
  fields[2 * i] = ARGV[skus + i] .. ':reserved'
end
fields[2 * m + 1], fields[2 * m + 2] = ':seq', ':term'
local stock = redis.call('HMGET', KEYS[2], unpack(fields))
local seq = tonumber(stock[2 * m + 1])
if not seq or stock[2 * m + 2] ~= ARGV[9] then return { string.rep('E', n), '', sale[5] .. ' 0' } end
local available, reserved = {}, {}
for i = 1, m do
  available[i], reserved[i] = tonumber(stock[2 * i - 1]), tonumber(stock[2 * i])
end
local earlier = redis.call('HMGET', KEYS[3], unpack(ARGV, keys + 1, keys + n))
local held = redis.call('HMGET', KEYS[4], unpack(ARGV, buyers + 1, buyers + n))

local counted, counted_new, counted_at = {}, {}, 1
if limited then
  for first = fields_at + 1, #ARGV, 1000 do  -- Lua's stack takes 8000 values
    local last = math.min(first + 999, #ARGV)
    local units = redis.call('HMGET', KEYS[7], unpack(ARGV, first, last))
    for i = first, last do counted[i - fields_at] = tonumber(units[i - first + 1] or 0) or 0 end
  end
end

local byte, sub, char, unpack_item, floor = string.byte, string.sub, string.char, struct.unpack, math.floor
local codes, replays = {}, {}
local units_of, buyers_new = {}, {}     -- buyer -> units, as this batch has decided so far; what to write of it
local fresh, keyed, index_of = {}, {}, {}  -- key -> request that won with it; those requests; their index
local item_sku, item_quantity = {}, {}
local text_of = {}                      -- most totals are alike, and turning a number into text costs
local winners, wins_keyed, filled, at = 0, 0, 0, 1
for i = 1, n do
  local key = ARGV[keys + i]
  local count, sku, quantity = unpack_item('>BHI4', items, at)
  local first = at + 1
  at = first + 6 * count
  local counted_from = counted_at
  if limited then counted_at = counted_at + 1 + 10 * byte(limited, counted_at) end
  local twin, before = fresh[key], earlier[i]
  if twin or before then  -- ahead of the window and the stock: whoever won hears so, also after sell-out
    if (twin and sub(bodies, 8 * twin - 7, 8 * twin) or sub(before, 1, 8)) == sub(bodies, 8 * i - 7, 8 * i) then
      codes[i] = 'R'
      replays[#replays + 1] = twin or sub(before, 9)
    else
      codes[i] = 'K'
    end
  elseif visitors and byte(visitors, i) == 49 and not held[i] and not units_of[ARGV[buyers + i]] then
    codes[i] = 'M'
  elseif closed_code then
    codes[i] = closed_code
  else
    local buyer, units, code = ARGV[buyers + i], 0, 'A'
    for k = 1, count do
      if k > 1 then sku, quantity = unpack_item('>HI4', items, first + 6 * (k - 1)) end
      item_sku[k], item_quantity[k] = sku, quantity
      units = units + quantity
      if not available[sku] then code = 'U' break end
      if available[sku] < quantity then code = 'S' end
    end
    local total = (units_of[buyer] or tonumber(held[i] or 0) or 0) + units
    if limit > 0 and total > limit and code ~= 'U' then code = 'L' end
    if limited and code ~= 'U' and code ~= 'L' then
      for at = counted_from + 1, counted_at - 1, 10 do
        local field, more, most = unpack_item('>HI4I4', limited, at)
        if counted[field] + more > most then code = 'F' end
      end
    end
    codes[i] = code
    if code == 'A' then
      if limited then
        for at = counted_from + 1, counted_at - 1, 10 do
          local field, more = unpack_item('>HI4', limited, at)
          counted[field], counted_new[field] = counted[field] + more, true
        end
      end
      for k = 1, count do
        local sku, quantity = item_sku[k], item_quantity[k]
        available[sku] = available[sku] - quantity
        reserved[sku] = reserved[sku] + quantity
      end
      units_of[buyer] = total
      local text = text_of[total]
      if not text then
        text = string.format('%.0f', total)
        text_of[total] = text
      end
      buyers_new[filled + 1], buyers_new[filled + 2] = buyer, text
      filled = filled + 2
      if key ~= '' then
        wins_keyed = wins_keyed + 1
        keyed[wins_keyed], index_of[i], fresh[key] = i, winners, i
      end
      winners = winners + 1
    end
  end
end
codes = table.concat(codes)

local id, id_packed = '', ''
if winners > 0 then
  local written = ARGV[7]
  if winners < n then
    local parts, from = {}, 1
    for i = 1, n do
      local size = unpack_item('>I4', ARGV[8], 4 * i - 3)
      if byte(codes, i) == 65 then parts[#parts + 1] = sub(ARGV[7], from, from + size - 1) end
      from = from + size
    end
    written = table.concat(parts)
  end
  -- Of a wrong type, or without its group, they must fail here; the other keys were read above.
  redis.call('XPENDING', KEYS[5], 'delivery', '-', '-', 1)
  redis.call('HLEN', KEYS[6])
  -- Checks end here, writes begin: a script has no rollback.
  id = redis.call('XADD', KEYS[5], '*', 'v1', written)
  redis.call('XCLAIM', KEYS[5], 'delivery', node, 0, id, 'FORCE', 'JUSTID')
  redis.call('HSET', KEYS[6], id, string.rep('.', winners))
  local ms, sequence = string.match(id, '^(%d+)-(%d+)$')
  id_packed = struct.pack('>I6I4', tonumber(ms), tonumber(sequence))
  if wins_keyed > 0 then
    local requests_new = {}
    for k = 1, wins_keyed do
      local i = keyed[k]
      local index = index_of[i]
      requests_new[2 * k - 1] = ARGV[keys + i]
      requests_new[2 * k] = sub(bodies, 8 * i - 7, 8 * i) .. id_packed .. char(floor(index / 256), index % 256)
    end
    redis.call('HSET', KEYS[3], unpack(requests_new))
  end
  redis.call('HSET', KEYS[4], unpack(buyers_new))
  for field in pairs(counted_new) do
    redis.call('HSET', KEYS[7], ARGV[fields_at + field], string.format('%.0f', counted[field]))
  end
  seq = seq + 1
  local stock_new, size = { ':seq', seq }, 2
  for i = 1, m do
    if available[i] then  -- Redis writes a number out exactly up to 2^53, more than there may be of anything
      stock_new[size + 1], stock_new[size + 2] = fields[2 * i - 1], available[i]
      stock_new[size + 3], stock_new[size + 4] = fields[2 * i], reserved[i]
      size = size + 4
    end
  end
  redis.call('HSET', KEYS[2], unpack(stock_new))
elseif must_write and #replays > 0 then
  redis.call('HINCRBY', KEYS[1], 'replays', #replays)
end
local reply = { codes, id, sale[5] .. string.format(' %.0f', seq) }
for i, replay in ipairs(replays) do
  reply[3 + i] = index_of[replay] and id_packed .. struct.pack('>H', index_of[replay]) or replay  -- of this very batch
end
return reply
