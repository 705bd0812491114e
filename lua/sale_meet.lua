#!lua flags=allow-oom
--[[ sale_meet: a node and a partition look at each other: does Redis have all that this node was told of?

Why      a Redis may come back with less than it acknowledged: restarted without its last second, a replica promoted that
         was behind, an old dump, another server. Every change that somebody was told of has a number, `:seq`. Who was
         told of a higher one than is here knows of a loss. To tell also after others went on from the lower number, time
         is cut into terms: a term begins with the first node that meets a run of Redis, and `:terms` keeps the number
         that each began with. What a node heard in a term must not be above the number with which the next one began.
         A term's name is never used twice, so one that is not known here was lost with all that happened in it.
         order_admit sells to nobody who believes in another term; a fenced partition's ends with `!`, and nobody believes
         in that.
         allow-oom: a fence must always be possible.
KEYS[1]  sale hash: status; fence ('ms found seen' while fenced)
KEYS[2]  stock hash: :seq; :term (its last sign is ! while fenced); :terms ('term seq term seq …', the latest last);
         :run (which run of Redis was met last)
ARGV[1]  run of Redis that the node talks to
ARGV[2]  eight signs that nobody has used
ARGV[3]  names of the terms that this node knows ('' = it was told of nothing)
ARGV[4]  seq, the highest that it was told
ARGV[5]  most terms that are kept
Slot     {sale/partition}, both keys
Returns  {MET | FENCED, names of the terms, seq, number up to which all is here or '' if nothing that this node was told of
         is missing, fence, number with which the latest term began} | {GONE} there is no such sale
Cost     O(terms kept)
]]
local run, nonce, told_seq, terms_max = ARGV[1], ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
local sale = redis.call('HMGET', KEYS[1], 'status', 'fence')
if not sale[1] then return { 'GONE' } end
local stock = redis.call('HMGET', KEYS[2], ':seq', ':term', ':terms', ':run')
local seq, fenced = tonumber(stock[1] or '0') or 0, string.sub(stock[2] or '', -1) == '!'
local term = string.gsub(stock[2] or '', '!', '')
local function number_of(name) return tonumber(string.match(name, '^%d+') or '0') end
local number, told, told_last = number_of(term), {}, 0
for name in string.gmatch(ARGV[3], '%S+') do
  told[name], told_last = true, math.max(told_last, number_of(name))
end
number = math.max(number, told_last)
local terms, begins, found = {}, {}, nil
for name, began in string.gmatch(stock[3] or '', '(%S+) (%d+)') do
  terms[#terms + 1], begins[#begins + 1] = name, tonumber(began)
end
for i = #terms, 1, -1 do  -- the last that both know: the next one began with what was left of it
  if not found and told[terms[i]] then found = begins[i + 1] or seq end
end
if not found then  -- none: nothing is left of what this node was told, unless that is so long ago that it is forgotten here
  found = terms[1] and told_last < number_of(terms[1]) and begins[1] or 0
end
local lost = told_last > 0 and told_seq > found
if not lost and stock[2] and stock[4] == run then
  return { fenced and 'FENCED' or 'MET', table.concat(terms, ' '), string.format('%.0f', seq), '', sale[2] or '',
    string.format('%.0f', begins[#begins] or 0) }
end

-- Checks end here, writes begin: a script has no rollback.
local fence = sale[2] or ''
if lost and not fenced then
  local time = redis.call('TIME')
  fence = string.format('%.0f %.0f %.0f', time[1] * 1000 + math.floor(time[2] / 1000), found, told_seq)
  redis.call('HSET', KEYS[1], 'fence', fence)
  fenced = true
end
term = string.format('%.0f.%s', number + 1, nonce)
terms[#terms + 1], begins[#begins + 1] = term, seq
local kept, names = {}, {}
for i = math.max(1, #terms - terms_max + 1), #terms do
  kept[#kept + 1] = terms[i] .. ' ' .. string.format('%.0f', begins[i])
  names[#names + 1] = terms[i]
end
redis.call('HSET', KEYS[2], ':seq', string.format('%.0f', seq), ':term', fenced and term .. '!' or term,
  ':terms', table.concat(kept, ' '), ':run', run)
return { fenced and 'FENCED' or 'MET', table.concat(names, ' '), string.format('%.0f', seq),
  lost and string.format('%.0f', found) or '', fence, string.format('%.0f', seq) }
