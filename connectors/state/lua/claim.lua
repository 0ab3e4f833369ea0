-- Takes the lease if nobody has it, and moves the request to PROCESSING.
--
-- KEYS  request hash, load hash, deadlines set, birth of this store, birth up to which ends were read back
-- ARGV  1 owner, 2 token of this claim, 3 length of the lease, 4 retention, both in ms; of the task that is claimed:
--       5 version (0: any), 6 number of its next call, 7 request id, 8 size in bytes, 9 deadline in ms,
--       10 whether a worker before may have called for it while this store was away, 11 how often it was redriven
-- Gives {'claimed', fence, attempt, version, history missing, lost calls as JSON or '', cancelled}
--       or {'busy', retry after ms} or {'settled', state, version, outcome, place}
--       or {'moved', state, version, summary} or {'stale'} or {'unborn'} or {'restoring'}

local request, load, deadlines = KEYS[1], KEYS[2], KEYS[3]
local owner, token, lease_ms, retention_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local task_version, task_attempt = tonumber(ARGV[5]), tonumber(ARGV[6])
local request_id, task_bytes, task_deadline_ms = ARGV[7], ARGV[8], tonumber(ARGV[9])
local may_have_been_called, redrives = ARGV[10] == '1', tonumber(ARGV[11])

local TERMINAL = {completed = true, failed = true, expired = true, cancelled = true, rejected = true}

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local until_ms = now_ms + lease_ms

local known = redis.call('HMGET', request, 'state', 'version', 'fence', 'attempt', 'doubt', 'deadline',
  'owner', 'token', 'started', 'until', 'lost', 'task', 'moved', 'cancel', 'size', 'redrives')
local state, version, fence = known[1], tonumber(known[2] or 0), tonumber(known[3] or 0)
local attempt, doubt, deadline_ms = tonumber(known[4] or 1), known[5], tonumber(known[6] or 0)
local held_by, held_token, started_ms, held_until_ms = known[7], known[8], tonumber(known[9]), tonumber(known[10])
local lost, known_task, moved, cancel = known[11] or '', tonumber(known[12] or 0), known[13], known[14]
local size_bytes = known[15]

if not state then
  local reply = unproved(KEYS[4], KEYS[5])
  if reply then
    return reply
  end
  if task_version > 0 and is_forgotten(task_deadline_ms, retention_ms, now_ms) then
    return {'stale'}
  end
end
local ahead = not state or is_ahead(TERMINAL[state], version, known[16], task_version, redrives)
if TERMINAL[state] and not ahead then
  return settled(request, state, version)
end
if task_version > 0 and task_version < known_task then
  -- Once the task that followed was claimed, it is in Kafka.
  local is_waiting = (state == 'queued' or state == 'retry_scheduled') and version == known_task
  if is_waiting and tonumber(moved or 0) == task_version then
    return {'moved', state, version, redis.call('HGET', request, 'summary') or ''}
  end
  return {'stale'}
end
if state == 'retry_scheduled' and not ahead then
  return {'moved', state, version, redis.call('HGET', request, 'summary') or ''}
end

local function outlive_lease()
  if until_ms > deadline_ms then
    redis.call('PEXPIREAT', request, while_alive(until_ms, retention_ms))
  end
end

local function claimed()
  return {'claimed', fence, attempt, version, doubt and 1 or 0, lost, cancel and 1 or 0}
end

local function lose(number, by, since_ms)
  local calls = lost == '' and {} or cjson.decode(lost)
  table.insert(calls, {number, by, since_ms})
  lost = cjson.encode(calls)
  redis.call('HSET', request, 'lost', lost)
  attempt = attempt + 1
end

local is_reclaim = state == 'processing' and not ahead
if is_reclaim then
  -- The same claim again: its reply was lost on the way, so no call was made under this lease.
  if held_token == token then
    redis.call('HSET', request, 'until', until_ms)
    outlive_lease()
    return claimed()
  end
  if held_until_ms > now_ms then
    return {'busy', held_until_ms - now_ms}
  end
  lose(attempt, held_by, started_ms)
end
-- Once for each task: its record may be delivered again and again. Where its history is missing, that covers it.
if may_have_been_called and redis.call('HGET', request, 'alone') ~= ARGV[5] then
  redis.call('HSET', request, 'alone', task_version)
  if not ahead then
    lose(attempt, 'unknown', now_ms)
  end
end

if ahead then
  if TERMINAL[state] then
    cancel = false
    redis.call('HDEL', request, 'cancel', 'outcome', 'outside', 'place')
  end
  version, attempt, doubt, lost = math.max(version, task_version), math.max(attempt, task_attempt), '1', ''
  redis.call('HDEL', request, 'lost', 'moved')
  redis.call('HSET', request, 'doubt', 1, 'task', task_version, 'redrives', redrives)
end
if doubt or not size_bytes then
  -- What this store has lost is counted again.
  deadline_ms = math.max(deadline_ms, task_deadline_ms, now_ms)
  redis.call('HSET', request, 'deadline', deadline_ms)
  redis.call('PEXPIREAT', request, while_alive(deadline_ms, retention_ms))
  if size_bytes or task_version > 0 then
    size_bytes = size_bytes or task_bytes
    redis.call('HSET', request, 'size', size_bytes)
    if redis.call('ZADD', deadlines, deadline_ms, size_bytes .. ':' .. request_id) == 1 then
      redis.call('HINCRBY', load, 'bytes', size_bytes)
    end
  end
end
if doubt and not is_reclaim then
  -- It may have had another life here. Milliseconds of the clock are above any that it was given then.
  version = math.max(version, now_ms)
end
version = version + 1
fence = next_fence(fence, time)
redis.call('HSET', request, 'state', 'processing', 'version', version, 'fence', fence, 'attempt', attempt,
  'owner', owner, 'token', token, 'started', now_ms, 'until', until_ms)
outlive_lease()
return claimed()
