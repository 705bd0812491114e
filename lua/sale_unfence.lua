#!lua flags=allow-oom
--[[ sale_unfence: a fenced partition was repaired; it may sell again, in a new term.

Why      from this step on the order_admit of a node that slept through fence and repair still names an old term, and
         decides nothing before that node has looked at what it remembers. Nobody opens while an order waits to be
         replayed: one that a node noted meanwhile is found here.
         allow-oom: it is part of ending what a fault began.
KEYS[1]  sale hash: fence, fence_unknown
KEYS[2]  stock hash: :seq, :term, :terms
KEYS[3]  lost hash: entry id -> its orders, packed; '' once dealt with
ARGV[1]  eight signs that nobody has used
ARGV[2]  most terms that are kept
Slot     {sale/partition}, all keys
Returns  OPEN | OPENED (by this call) | LEFT (something waits to be replayed) | GONE
Cost     O(entries ever lost): once a repair
]]
if redis.call('EXISTS', KEYS[1]) == 0 then return 'GONE' end
local stock = redis.call('HMGET', KEYS[2], ':seq', ':term', ':terms')
if string.sub(stock[2] or '', -1) ~= '!' then return 'OPEN' end
for _, packed in ipairs(redis.call('HVALS', KEYS[3])) do
  if packed ~= '' then return 'LEFT' end
end
-- Checks end here, writes begin.
local term = string.format('%.0f.%s', tonumber(string.match(stock[2], '^%d+')) + 1, ARGV[1])
local terms = {}
for pair in string.gmatch(stock[3] or '', '%S+ %d+') do terms[#terms + 1] = pair end
terms[#terms + 1] = term .. ' ' .. (stock[1] or '0')
redis.call('HSET', KEYS[2], ':term', term,
  ':terms', table.concat(terms, ' ', math.max(1, #terms - tonumber(ARGV[2]) + 1)))
redis.call('HDEL', KEYS[1], 'fence', 'fence_unknown')
return 'OPENED'
