#!lua flags=allow-oom
--[[ order_retry: note that orders were tried and must be tried again, and when.

Why      a node that takes over must know how often an order was tried and when it is due, or a crash turns a patient
         backoff into a storm.
KEYS[1]  outcome hash: entry id -> one character an order
KEYS[2]  retry zset: <entry id>.<index> -> due ms
KEYS[3]  detail hash: <entry id>.<index> -> JSON (attempts, last error)
ARGV[1]  n, orders
ARGV[2..] for each order: entry id, index from 0, delay in ms from now, JSON
Slot     {sale/partition}, all keys
Returns  how many were noted; orders that ended meanwhile are passed over
Cost     O(n log N), N = orders waiting for a retry
]]
local time = redis.call('TIME')  -- one clock: nodes that differ must not hasten or forget a retry
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
-- Of a wrong type they must fail here, not after the first write.
redis.call('ZCARD', KEYS[2])
redis.call('HLEN', KEYS[3])
local noted = 0
for i = 1, tonumber(ARGV[1]) do
  local id, index, delay_ms, detail = ARGV[4 * i - 2], tonumber(ARGV[4 * i - 1]), ARGV[4 * i], ARGV[4 * i + 1]
  local outcome = redis.call('HGET', KEYS[1], id)
  -- Not answered yet: open, or with an end that waits for the answer (order_move).
  if outcome and string.find(string.sub(outcome, index + 1, index + 1), '[.:pqt]') then
    local address = id .. '.' .. index
    redis.call('ZADD', KEYS[2], now_ms + tonumber(delay_ms), address)
    redis.call('HSET', KEYS[3], address, detail)
    noted = noted + 1
  end
end
return noted
