#!lua flags=allow-oom
--[[ entry_drained: the records hold these entries' orders durably; forget them here.

Why      entry, outcome and details go together, and the units are counted as archived in the same step: at every
         moment an order is either here or in the archived sum, never in both and never in neither.
         Repeating it changes nothing: only an entry that still has its outcome is counted. One with an order that has
         not ended stays: a Redis may have come back without the end, and the units would stay reserved for ever.
KEYS[1]  stock hash: <sku>:archived (units sold whose orders are in the records)
KEYS[2]  intake stream
KEYS[3]  outcome hash
KEYS[4]  detail hash
KEYS[5]  finished stream
KEYS[6]  hooks stream, with its group `webhooks`: what the shop is to be told; begun with the first
ARGV[1]  'notices entries details hooks', four counts
ARGV[2..] ids of the notices in the finished stream
         then for each entry: entry id, how many SKUs follow, then for each SKU: sku, units sold in this entry
         then the fields of the detail hash
         then for each hook: entry id, webhook id, body; put only by the call that forgets its entry
Slot     {sale/partition}, all keys
Returns  entries forgotten by this call
Errors   NOCOUNT: a counter is missing or no number (a foreign hand)
Cost     O(notices + entries + details + hooks)
]]
local counts = {}
for number in string.gmatch(ARGV[1], '%d+') do counts[#counts + 1] = tonumber(number) end
local notices, entries, details, hooks = unpack(counts)
local archived, gone, is_gone = {}, {}, {}
local ids, skus_at, at = {}, {}, 2 + notices
for i = 1, entries do
  ids[i], skus_at[i] = ARGV[at], at + 1
  at = at + 2 + 2 * tonumber(ARGV[at + 1])
end
for first = 1, entries, 1000 do
  local outcomes = redis.call('HMGET', KEYS[3], unpack(ids, first, math.min(first + 999, entries)))
  for k, outcome in ipairs(outcomes) do
    local i = first + k - 1
    if outcome and not string.find(outcome, '.', 1, true) and not is_gone[ids[i]] then
      is_gone[ids[i]] = true
      gone[#gone + 1] = ids[i]
      for j = skus_at[i] + 1, skus_at[i] + 2 * tonumber(ARGV[skus_at[i]]), 2 do
        archived[ARGV[j]] = (archived[ARGV[j]] or 0) + tonumber(ARGV[j + 1])
      end
    end
  end
end
local fields, more, archived_new = {}, {}, {}
for sku, units in pairs(archived) do
  local at = #fields + 1
  fields[at], more[at] = sku .. ':archived', units
end
for first = 1, #fields, 1000 do
  local last = math.min(first + 999, #fields)
  for i, units in ipairs(redis.call('HMGET', KEYS[1], unpack(fields, first, last))) do
    local at = first + i - 1
    if not (units and string.find(units, '^%d+$')) then return redis.error_reply('NOCOUNT ' .. KEYS[1] .. ' ' .. fields[at]) end
    -- Redis writes a number out exactly up to 2^53, more than there may be of anything.
    archived_new[2 * at - 1], archived_new[2 * at] = fields[at], units + more[at]
  end
end
redis.call('XLEN', KEYS[2])
redis.call('HLEN', KEYS[4])
redis.call('XLEN', KEYS[5])
local first_hook = redis.call('XLEN', KEYS[6]) == 0 and redis.call('EXISTS', KEYS[6]) == 0

-- Checks end here, writes begin: a script has no rollback. A thousand at a time: Lua's stack takes 8000 values.
local function in_parts(first, last, write)
  for i = first, last, 1000 do write(i, math.min(i + 999, last)) end
end
in_parts(1, #archived_new, function(first, last) redis.call('HSET', KEYS[1], unpack(archived_new, first, last)) end)
in_parts(1, #gone, function(first, last)
  redis.call('HDEL', KEYS[3], unpack(gone, first, last))
  redis.call('XDEL', KEYS[2], unpack(gone, first, last))
end)
in_parts(at, at + details - 1, function(first, last) redis.call('HDEL', KEYS[4], unpack(ARGV, first, last)) end)
in_parts(2, 1 + notices, function(first, last)
  redis.call('XACK', KEYS[5], 'records', unpack(ARGV, first, last))
  redis.call('XDEL', KEYS[5], unpack(ARGV, first, last))
end)
local hooks_at = at + details
if hooks > 0 and first_hook then redis.call('XGROUP', 'CREATE', KEYS[6], 'webhooks', '0', 'MKSTREAM') end
for i = hooks_at, hooks_at + 3 * hooks - 1, 3 do
  if is_gone[ARGV[i]] then redis.call('XADD', KEYS[6], '*', 'id', ARGV[i + 1], 'body', ARGV[i + 2]) end
end
return #gone
