#!lua flags=allow-oom
--[[ sale_spread: bring a partition up to what partition 0 says of the sale; begin the partition if it is not there.

Why      settings are changed in partition 0 and copied by whoever notices. The version makes copies arrive in order,
         whoever is slow. allow-oom: pausing must always be possible.
KEYS[1]  sale hash
KEYS[2]  stock hash: field `:version` copies the version; `:seq` and `:term` begin (see sale_meet)
KEYS[3]  intake stream, with its group `delivery`
KEYS[4]  finished stream, with its group `records`
ARGV[1]  version of what follows
ARGV[2..] field, value, field, value … of the sale hash
Slot     {sale/partition}, all keys
Returns  BEGUN | UPDATED | SAME (this version or a later one was here)
Cost     O(fields)
]]
local version = redis.call('HGET', KEYS[1], 'version')
if version and tonumber(version) >= tonumber(ARGV[1]) then return 'SAME' end
redis.call('HLEN', KEYS[2])
if version then
  redis.call('XLEN', KEYS[3])
  redis.call('XLEN', KEYS[4])
end
-- Checks end here, writes begin: a script has no rollback.
if not version then
  redis.call('XGROUP', 'CREATE', KEYS[3], 'delivery', '0', 'MKSTREAM')
  redis.call('XGROUP', 'CREATE', KEYS[4], 'records', '0', 'MKSTREAM')
end
redis.call('HSET', KEYS[1], 'version', ARGV[1], unpack(ARGV, 2))
redis.call('HSET', KEYS[2], ':version', ARGV[1])
if not version then
  local time = redis.call('TIME')
  local term = '1.' .. string.sub(redis.sha1hex(KEYS[1] .. time[1] .. time[2]), 1, 8)
  redis.call('HSET', KEYS[2], ':seq', 0, ':term', term, ':terms', term .. ' 0')
end
return version and 'UPDATED' or 'BEGUN'
