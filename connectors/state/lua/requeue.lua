-- Moves a request whose wait is over from RETRY_SCHEDULED to QUEUED.
--
-- KEYS  request hash, birth of this store, birth up to which ends were read back
-- ARGV  1 version of the task that waited, 2 number of its next call, 3 summary, 4 deadline, 5 retention, both in ms;
--       6 how often it was redriven
-- Gives {'moved', state, version, summary} or {'stale'} or {'settled', state, version, outcome, place}
--       or {'unborn'} or {'restoring'}

local request = KEYS[1]
local task_version, task_attempt, summary = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local deadline_ms, retention_ms, redrives = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local TERMINAL = {completed = true, failed = true, expired = true, cancelled = true, rejected = true}

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local known = redis.call('HMGET', request, 'state', 'version', 'task', 'moved', 'redrives')
local state, version = known[1], tonumber(known[2] or 0)
local known_task, moved = tonumber(known[3] or 0), tonumber(known[4] or 0)

if not state then
  local reply = unproved(KEYS[2], KEYS[3])
  if reply then
    return reply
  end
  if is_forgotten(deadline_ms, retention_ms, now_ms) then
    return {'stale'}
  end
end
local ahead = is_ahead(TERMINAL[state], version, known[5], task_version, redrives)
if TERMINAL[state] and not ahead then
  return settled(request, state, version)
end
if not ahead then
  -- Once the task that followed was claimed, it is in Kafka.
  if state == 'queued' and moved == task_version and version == known_task then
    return {'moved', state, version, redis.call('HGET', request, 'summary') or ''}
  end
  if state ~= 'retry_scheduled' or known_task ~= task_version then
    return {'stale'}
  end
else
  -- Its claim will count it again.
  deadline_ms = math.max(deadline_ms, now_ms)
  redis.call('HDEL', request, 'owner', 'token', 'started', 'until', 'lost', 'outcome', 'outside', 'place')
  if TERMINAL[state] then
    redis.call('HDEL', request, 'cancel')
  end
  redis.call('HSET', request, 'doubt', 1, 'deadline', deadline_ms, 'redrives', redrives)
  redis.call('PEXPIREAT', request, while_alive(deadline_ms, retention_ms))
end

-- A fence says that the request's own record causes nothing more: there was a call before this wait.
redis.call('HSETNX', request, 'fence', 0)
version = math.max(version, task_version) + 1
redis.call('HSET', request, 'state', 'queued', 'version', version, 'task', version, 'moved', task_version,
  'attempt', task_attempt, 'summary', summary)
return {'moved', 'queued', version, summary}
