-- Remembers a request that ends at the door, with its outcome, without counting it.
--
-- KEYS  request hash, birth of this store, birth up to which ends were read back
-- ARGV  1 origin, 2 terminal state, 3 version, 4 outcome, 5 retention in ms, 6 how often it was redriven,
--       7 when its record was written, in ms
-- Gives {'admitted', version, attempt, repeated, cancelled} or {'settled', state, version, outcome, place}
--       or {'duplicate', state} or {'unborn'} or {'restoring'} or {'doubtful', lowest version}

local request = KEYS[1]
local origin, state, version, outcome, retention_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local redrives = tonumber(ARGV[6])

-- An answer to `doubtful` comes within this time.
local DOUBT_MS = 600000
local REDRIVABLE = {failed = true, expired = true, cancelled = true, rejected = true}

local known = redis.call('HMGET', request, 'state', 'version', 'fence', 'origin', 'attempt', 'redrives', 'size',
  'cancel')
if not known[1] then
  local reply = unproved(KEYS[2], KEYS[3])
  if reply then
    return reply
  end
  -- It may have had a life in a store that is lost. Versions from the clock are above any that it was given then.
  local now_ms = tonumber(redis.call('TIME')[1]) * 1000
  if tonumber(ARGV[7]) <= tonumber(redis.call('GET', KEYS[2])) and version < now_ms - DOUBT_MS then
    return {'doubtful', now_ms}
  end
end
local new_life = known[1] and REDRIVABLE[known[1]] and redrives > tonumber(known[6] or 0)
if known[1] and not new_life then
  -- What was read back from Kafka does not tell whose record it was: its end is published again, as it stands.
  if not known[4] and redis.call('HEXISTS', request, 'place') == 1 then
    return settled(request, known[1], tonumber(known[2]))
  end
  local same_record = known[4] == origin
  if known[3] or not same_record or known[1] == 'retry_scheduled' then
    return {'duplicate', known[1]}
  end
  if known[1] == 'queued' then
    return {'admitted', tonumber(known[2]), tonumber(known[5]), 1, known[8] and 1 or 0}
  end
  -- The first refusal stands, whatever the reason is now: it may be published already.
  return settled(request, known[1], tonumber(known[2]))
end

version = math.max(version, (known[2] or 0) + 1)
redis.call('DEL', request)
redis.call('HSET', request, 'state', state, 'version', version, 'attempt', known[5] or 0, 'origin', origin,
  'redrives', redrives, 'outcome', outcome)
-- The end of its last life may be counted until it is confirmed: by its size it can be taken out.
if known[7] then
  redis.call('HSET', request, 'size', known[7])
end
redis.call('PEXPIRE', request, retention_ms)
return settled(request, state, version)
