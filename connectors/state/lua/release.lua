-- Gives a lease back before an outcome. Without effect for a lease that is not held.
--
-- KEYS  request hash
-- ARGV  1 fence, 2 whether the provider was called (1 or 0)

local request, fence, called = KEYS[1], ARGV[1], ARGV[2] == '1'

local known = redis.call('HMGET', request, 'state', 'fence', 'until', 'version')
local given_back = known[3] == '0'
if known[1] ~= 'processing' or known[2] ~= fence or given_back then
  return
end
redis.call('HDEL', request, 'token')
if called then
  -- It ends now, and the next claim finds it as it would find one that lapsed.
  redis.call('HSET', request, 'until', 0)
else
  redis.call('HSET', request, 'state', 'queued', 'version', known[4] + 1)
end
