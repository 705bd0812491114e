#!lua flags=allow-oom
--[[ ledger_forget: a sale has been closed for long; forget who bought what in it.

Why      the buyers' ledger is all that Redis keeps of a drained order. It may go only when no order of the sale is
         open or undrained, and only once, and nothing may be admitted after it: closed is final.
KEYS[1]  sale hash
KEYS[2]  intake stream
KEYS[3]  finished stream
KEYS[4]  requests hash
KEYS[5]  buyers hash
KEYS[6]  changes hash
KEYS[7]  limits hash
ARGV[1]  keep_ms, how long after closing the ledger is kept
Slot     {sale/partition}, all keys
Returns  FORGOTTEN | KEPT
Cost     O(1): UNLINK frees the memory outside the main thread
]]
local sale = redis.call('HMGET', KEYS[1], 'status', 'closed_ms', 'forgotten')
if sale[1] ~= 'closed' or sale[3] then return 'KEPT' end
local time = redis.call('TIME')
if time[1] * 1000 + math.floor(time[2] / 1000) < tonumber(sale[2]) + tonumber(ARGV[1]) then return 'KEPT' end
if redis.call('XLEN', KEYS[2]) > 0 or redis.call('XLEN', KEYS[3]) > 0 then return 'KEPT' end
redis.call('UNLINK', KEYS[4], KEYS[5], KEYS[6], KEYS[7])
redis.call('HSET', KEYS[1], 'forgotten', 1)
return 'FORGOTTEN'
