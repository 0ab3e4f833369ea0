-- Ends a claim with another try to come: later (RETRY_SCHEDULED), or at once on another lane (QUEUED).
--
-- KEYS  request hash
-- ARGV  1 fence, 2 version of the lease, 3 next state, 4 version of the task that was claimed, 5 number of the next
--       call, 6 summary, 7 retention in ms, 8 whether the lease is a worker's own, taken while this store was away
-- Gives nothing to the winner, {'settled', state, version, outcome, place} to others, and {'called off'} where the
-- request was cancelled: its holder is to end it, and not to find that out when the wait is over

local request = KEYS[1]
local fence, lease_version, next_state = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local task_version, next_attempt, summary, retention_ms = ARGV[4], ARGV[5], ARGV[6], tonumber(ARGV[7])

local TERMINAL = {completed = true, failed = true, expired = true, cancelled = true, rejected = true}

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', request, 'state', 'fence', 'until', 'version', 'cancel')
local state, version, held_until_ms = known[1], tonumber(known[4]), tonumber(known[3] or 0)
local same_fence = known[2] == fence

if TERMINAL[state] then
  return settled(request, state, version)
end
local next_version = lease_version + 1
if state == next_state and same_fence and version == next_version then
  return
end
local held = state == 'processing' and same_fence and held_until_ms > 0
-- As in `settle`: a worker's own lease, or one that this store has lost.
local stands = false
if ARGV[8] == '1' then
  stands = state == 'queued' or state == 'processing' and held_until_ms <= now_ms
else
  stands = tonumber(known[2] or 0) < tonumber(fence)
end
if state and not (held or stands and version <= lease_version) then
  return blocked(state, version)
end
if known[5] then
  return {'called off'}
end

redis.call('HSET', request, 'state', next_state, 'version', next_version, 'task', next_version, 'moved', task_version,
  'fence', fence, 'attempt', next_attempt, 'summary', summary)
redis.call('HDEL', request, 'owner', 'token', 'started', 'until', 'lost', 'doubt')
if not state then
  redis.call('PEXPIREAT', request, while_alive(now_ms, retention_ms))
end
