#!lua flags=allow-oom
--[[ order_move: move orders of a sale with reservations on: made, refused, paid, given up, out of time, told.

Why      payment, expiry and the order service race for one order on any node, and exactly one of them may win: each
         move names the characters that it found, and does nothing where another stands by now. Its units, the buyer's,
         and the note that the order service is to be told go in the same step. Rows are independent of each other, so
         that one order that has just been paid does not hold up the expiry of a thousand. Which character may follow
         which is in src/domain/reservation.rs.
         allow-oom: ending orders is what frees memory.
KEYS[1]  stock hash: <sku>:available, :reserved, :sold (units), :grown (how often units came back or came in); :seq
KEYS[2]  buyers hash: buyer -> units held or bought
KEYS[3]  intake stream
KEYS[4]  outcome hash: entry id -> one character an order
KEYS[5]  finished stream: ids of entries whose orders have all ended for good
KEYS[6]  retry zset: <entry id>.<index> -> due ms
KEYS[7]  detail hash: <entry id>.<index> -> JSON
KEYS[8]  ends stream: '<entry id> <index>,<index>…', orders of whose end the order service is to be told
KEYS[9]  extended zset: <entry id>.<index> -> deadline ms, of open orders that got longer than the others
KEYS[10] parts hash: <entry id>.<index> -> 'sku units sku units …', of orders that are paid in part
KEYS[11] limits hash: <limit>:<value> -> units held or bought under a limit of the sale
ARGV[1]  'rows retries details', three counts
ARGV[2..] for each row: entry id, index of its first order from 0, characters expected, characters new,
         when: '' | '<ms' only before that deadline | '>ms' only from it on (of an extended order, its own deadline),
         the deadline it gets in ms or '', the part that is paid or '', how many SKUs, how many buyers, how many limits;
         then for each SKU: sku, units to add to available, reserved, sold; for each buyer: buyer, units to add;
         for each limit: field, units to add. Only a row of one order has a deadline or a part.
         Then each <entry id>.<index> that was waiting for a retry
         then for each detail: <entry id>.<index>, JSON
Slot     {sale/partition}, all keys
Returns  for each row: 'D' done | 'S' and the entry's outcome, which is not what was expected | 'G' the entry is gone
         | 'L' too late | 'E' too early
Errors   NOCOUNT: a counter is missing or no number; NEGATIVE: it would fall below zero (a foreign hand, or a bug)
Cost     O(rows + SKUs + buyers + characters)
]]
local counts = {}
for number in string.gmatch(ARGV[1], '%d+') do counts[#counts + 1] = tonumber(number) end
local rows, retries, details = unpack(counts)
local time = redis.call('TIME')  -- one clock for all nodes, or a payment and its expiry could both be in time
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local function in_parts(first, last, each)  -- a thousand at a time: Lua's stack takes 8000 values
  for i = first, last, 1000 do each(i, math.min(i + 999, last)) end
end
local function is_count(text) return text and string.find(text, '^%-?%d+$') end

local starts, ids, known, at = {}, {}, {}, 2
for row = 1, rows do
  starts[row] = at
  local id = ARGV[at]
  if not known[id] then
    known[id] = true
    ids[#ids + 1] = id
  end
  at = at + 10 + 4 * ARGV[at + 7] + 2 * ARGV[at + 8] + 2 * ARGV[at + 9]
end
local retries_at = at
local outcome, before = {}, {}
in_parts(1, #ids, function(first, last)
  local written = redis.call('HMGET', KEYS[4], unpack(ids, first, last))
  for i = first, last do outcome[ids[i]] = written[i - first + 1] end
end)

-- Which rows hold, and what they come to.
local replies, units, buyers, limits = {}, {}, {}, {}
local tell, deadlines, over, parts = {}, {}, {}, {}
for row = 1, rows do
  local start = starts[row]
  local id, from, expected, new = ARGV[start], tonumber(ARGV[start + 1]), ARGV[start + 2], ARGV[start + 3]
  local when, address = ARGV[start + 4], id .. '.' .. from
  local written, word = outcome[id], 'D'
  if not written then
    word = 'G'
  elseif string.sub(written, from + 1, from + #expected) ~= expected or #new ~= #expected then
    word = 'S' .. written
  elseif when ~= '' then
    local deadline = tonumber(string.sub(when, 2))
    if expected == ':' or expected == '+' then
      deadline = tonumber(redis.call('ZSCORE', KEYS[9], address) or deadline)
    end
    if string.sub(when, 1, 1) == '<' then
      if now_ms >= deadline then word = 'L' end
    elseif now_ms < deadline then
      word = 'E'
    end
  end
  replies[row] = word
  if word == 'D' then
    before[id] = before[id] or written
    outcome[id] = string.sub(written, 1, from) .. new .. string.sub(written, from + #new + 1)
    local skus, buyer_count, limit_count = tonumber(ARGV[start + 7]), tonumber(ARGV[start + 8]), ARGV[start + 9]
    local first = start + 10
    for i = first, first + 4 * skus - 1, 4 do
      local sum = units[ARGV[i]] or { 0, 0, 0 }
      units[ARGV[i]] = sum
      for counter = 1, 3 do sum[counter] = sum[counter] + ARGV[i + counter] end
    end
    first = first + 4 * skus
    for i = first, first + 2 * buyer_count - 1, 2 do buyers[ARGV[i]] = (buyers[ARGV[i]] or 0) + ARGV[i + 1] end
    first = first + 2 * buyer_count
    for i = first, first + 2 * limit_count - 1, 2 do limits[ARGV[i]] = (limits[ARGV[i]] or 0) + ARGV[i + 1] end
    local due, found = {}, string.find(new, '[cxe]')
    while found do
      if string.byte(expected, found) ~= string.byte(new, found) then due[#due + 1] = from + found - 1 end
      found = string.find(new, '[cxe]', found + 1)
    end
    if #due > 0 then tell[#tell + 1] = id .. ' ' .. table.concat(due, ',') end
    if ARGV[start + 5] ~= '' then
      deadlines[#deadlines + 1] = ARGV[start + 5]
      deadlines[#deadlines + 1] = address
    else
      local longer = string.find(expected, '[:+]')
      while longer do
        local now = string.sub(new, longer, longer)
        if now ~= ':' and now ~= '+' then over[#over + 1] = id .. '.' .. (from + longer - 1) end
        longer = string.find(expected, '[:+]', longer + 1)
      end
    end
    if ARGV[start + 6] ~= '' then
      parts[#parts + 1] = address
      parts[#parts + 1] = ARGV[start + 6]
    end
  end
end

-- All counters are read and computed before anything is written: one that is none must fail here.
local stock_new, suffixes = {}, { ':available', ':reserved', ':sold' }
for sku, sum in pairs(units) do
  local counters = redis.call('HMGET', KEYS[1], sku .. ':available', sku .. ':reserved', sku .. ':sold', sku .. ':grown')
  for counter = 1, 3 do
    if not is_count(counters[counter]) then return redis.error_reply('NOCOUNT ' .. KEYS[1] .. ' ' .. sku) end
    local units_new = counters[counter] + sum[counter]
    if units_new < 0 then return redis.error_reply('NEGATIVE ' .. KEYS[1] .. ' ' .. sku) end
    stock_new[#stock_new + 1] = sku .. suffixes[counter]
    stock_new[#stock_new + 1] = string.format('%.0f', units_new)
  end
  if sum[1] > 0 then  -- who looks for units all over the sale must see that some came back
    if counters[4] and not is_count(counters[4]) then return redis.error_reply('NOCOUNT ' .. KEYS[1] .. ' ' .. sku) end
    stock_new[#stock_new + 1] = sku .. ':grown'
    stock_new[#stock_new + 1] = string.format('%.0f', (counters[4] or 0) + 1)
  end
end
-- One who holds nothing any more is not kept; nor is a loss made of a ledger that is forgotten.
local function settle(held, change)
  if not held then return nil end
  return math.max(held + change, 0)
end
local buyer_names, buyers_new, buyers_gone = {}, {}, {}
for buyer in pairs(buyers) do buyer_names[#buyer_names + 1] = buyer end
local limit_names, limits_new, limits_gone = {}, {}, {}
for field in pairs(limits) do limit_names[#limit_names + 1] = field end
local function read(get, names, changes, new, gone)
  local bad = false
  in_parts(1, #names, function(first, last)
    local held = get(unpack(names, first, last))
    for i = first, last do
      local text = held[i - first + 1]
      bad = bad or (text and not is_count(text))
      local total = not bad and settle(text, changes[names[i]])
      if total and total > 0 then
        new[#new + 1] = names[i]
        new[#new + 1] = string.format('%.0f', total)
      elseif total then
        gone[#gone + 1] = names[i]
      end
    end
  end)
  return bad
end
local function buyers_held(...) return redis.call('HMGET', KEYS[2], ...) end
local function limits_held(...) return redis.call('HMGET', KEYS[11], ...) end
if read(buyers_held, buyer_names, buyers, buyers_new, buyers_gone) then
  return redis.error_reply('NOCOUNT ' .. KEYS[2])
end
if read(limits_held, limit_names, limits, limits_new, limits_gone) then
  return redis.error_reply('NOCOUNT ' .. KEYS[11])
end
local written, made, complete = {}, {}, {}
for id, earlier in pairs(before) do
  local now = outcome[id]
  written[#written + 1] = id
  written[#written + 1] = now
  if string.find(earlier, '[.:pqt]') and not string.find(now, '[.:pqt]') then made[#made + 1] = id end
  if not string.find(now, '[^sfXE]') then complete[#complete + 1] = id end
end
redis.call('XLEN', KEYS[3])
redis.call('XLEN', KEYS[5])
redis.call('ZCARD', KEYS[6])
redis.call('HLEN', KEYS[7])
redis.call('XLEN', KEYS[8])
redis.call('ZCARD', KEYS[9])
redis.call('HLEN', KEYS[10])

-- Checks end here, writes begin: a script has no rollback.
in_parts(1, #written, function(first, last) redis.call('HSET', KEYS[4], unpack(written, first, last)) end)
in_parts(1, #stock_new, function(first, last) redis.call('HSET', KEYS[1], unpack(stock_new, first, last)) end)
in_parts(1, #buyers_new, function(first, last) redis.call('HSET', KEYS[2], unpack(buyers_new, first, last)) end)
in_parts(1, #buyers_gone, function(first, last) redis.call('HDEL', KEYS[2], unpack(buyers_gone, first, last)) end)
in_parts(1, #limits_new, function(first, last) redis.call('HSET', KEYS[11], unpack(limits_new, first, last)) end)
in_parts(1, #limits_gone, function(first, last) redis.call('HDEL', KEYS[11], unpack(limits_gone, first, last)) end)
in_parts(1, #deadlines, function(first, last) redis.call('ZADD', KEYS[9], 'GT', unpack(deadlines, first, last)) end)
in_parts(1, #over, function(first, last) redis.call('ZREM', KEYS[9], unpack(over, first, last)) end)
in_parts(1, #parts, function(first, last) redis.call('HSET', KEYS[10], unpack(parts, first, last)) end)
for _, message in ipairs(tell) do redis.call('XADD', KEYS[8], '*', 'v1', message) end
in_parts(1, #made, function(first, last) redis.call('XACK', KEYS[3], 'delivery', unpack(made, first, last)) end)
if #complete > 0 then redis.call('XADD', KEYS[5], '*', 'ids', table.concat(complete, ' ')) end
if #replies > 0 then
  local details_at = retries_at + retries
  in_parts(retries_at, details_at - 1, function(first, last)
    redis.call('ZREM', KEYS[6], unpack(ARGV, first, last))
  end)
  in_parts(details_at, details_at + 2 * details - 1, function(first, last)
    redis.call('HSET', KEYS[7], unpack(ARGV, first, last))
  end)
end
if #written > 0 then redis.call('HINCRBY', KEYS[1], ':seq', 1) end
return replies
