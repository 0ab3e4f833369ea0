-- Takes the lease if nobody has it, and moves the request to PROCESSING.
--
-- KEYS  request hash
-- ARGV  1 owner, 2 token of this claim, 3 length of the lease, 4 retention, both in ms
-- Gives {'claimed', fence, attempt, version, history missing, lost calls as JSON or ''} or {'busy', retry after ms}
--       or {'settled', state, version, outcome}

local request = KEYS[1]
local owner, token, lease_ms, retention_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local TERMINAL = {completed = true, failed = true, expired = true, cancelled = true, rejected = true}

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local until_ms = now_ms + lease_ms

local known = redis.call('HMGET', request, 'state', 'version', 'fence', 'attempt', 'origin', 'deadline',
  'owner', 'token', 'started', 'until', 'lost')
local state, version, fence = known[1], tonumber(known[2] or 0), tonumber(known[3] or 0)
local attempt, origin, deadline_ms = tonumber(known[4] or 1), known[5], tonumber(known[6] or 0)
local held_by, held_token, started_ms, held_until_ms = known[7], known[8], tonumber(known[9]), tonumber(known[10])
local lost = known[11] or ''

if TERMINAL[state] then
  return {'settled', state, version, redis.call('HGET', request, 'outcome')}
end

local function outlive_lease()
  if until_ms > deadline_ms then
    redis.call('PEXPIREAT', request, until_ms + retention_ms)
  end
end

local function claimed()
  return {'claimed', fence, attempt, version, origin and 0 or 1, lost}
end

if state == 'processing' then
  -- The same claim again: its reply was lost on the way, so no call was made under this lease.
  if held_token == token then
    redis.call('HSET', request, 'until', until_ms)
    outlive_lease()
    return claimed()
  end
  if held_until_ms > now_ms then
    return {'busy', held_until_ms - now_ms}
  end
  local lost_calls = lost == '' and {} or cjson.decode(lost)
  table.insert(lost_calls, {attempt, held_by, started_ms})
  lost = cjson.encode(lost_calls)
  redis.call('HSET', request, 'lost', lost)
  attempt = attempt + 1
elseif not state then
  -- It had a life here once. Versions from the clock are above any that it was given then.
  version = tonumber(time[1])
end

version = version + 1
-- From the clock as well, in microseconds: a lease of a life that this store has lost must not pass for one of this.
fence = math.max(fence + 1, time[1] * 1000000 + time[2])
redis.call('HSET', request, 'state', 'processing', 'version', version, 'fence', fence, 'attempt', attempt,
  'owner', owner, 'token', token, 'started', now_ms, 'until', until_ms)
outlive_lease()
return claimed()
