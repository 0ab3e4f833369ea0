-- Remembers a request that ends at the door, with its outcome, without counting it.
--
-- KEYS  request hash
-- ARGV  1 origin, 2 terminal state, 3 outcome, 4 retention in ms
-- Gives {'admitted', version, repeated} or {'settled', state, version, outcome} or {'duplicate', state}

local request = KEYS[1]
local origin, state, outcome, retention_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local known = redis.call('HMGET', request, 'state', 'version', 'fence', 'origin')
if known[1] then
  local same_record = known[4] == origin
  if known[3] or not same_record then
    return {'duplicate', known[1]}
  end
  if known[1] == 'queued' then
    return {'admitted', tonumber(known[2]), 1}
  end
  -- The first refusal stands, whatever the reason is now: it may be published already.
  return {'settled', known[1], tonumber(known[2]), redis.call('HGET', request, 'outcome')}
end

redis.call('HSET', request, 'state', state, 'version', 1, 'origin', origin, 'outcome', outcome)
redis.call('PEXPIRE', request, retention_ms)
return {'settled', state, 1, outcome}
