-- Notes a task that was found in Kafka after this store was emptied: its request is alive, and may have been called.
--
-- KEYS  request hash, load hash, deadlines set, cancellations set
-- ARGV  1 state, 2 version of the task, 3 number of its next call, 4 request id, 5 size in bytes, 6 deadline,
--       7 retention, both in ms; 8 summary, 9 origin, 10 how often it was redriven,
--       11 calls that may have been made and left no outcome, as JSON or empty, 12 how many,
--       13 tenant, 14 correlation id, 15 when it was asked for, in ms, 16 whether a call was made before (1 or 0),
--       17 version at which it was last claimed, as far as Kafka tells

local request, load, deadlines, cancels = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local state, task_version, attempt = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local request_id, size_bytes, retention_ms = ARGV[4], ARGV[5], tonumber(ARGV[7])
local summary, origin, redrives, was_called = ARGV[8], ARGV[9], ARGV[10], ARGV[16] == '1'

local TERMINAL = {completed = true, failed = true, expired = true, cancelled = true, rejected = true}

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local deadline_ms = math.max(tonumber(ARGV[6]), now_ms)

local function count()
  redis.call('PEXPIREAT', request, while_alive(deadline_ms, retention_ms))
  if redis.call('ZADD', deadlines, deadline_ms, size_bytes .. ':' .. request_id) == 1 then
    redis.call('HINCRBY', load, 'bytes', size_bytes)
  end
end

-- Nobody may come to claim it for a while: a sweep ends it.
local function call_off(counted_bytes)
  redis.call('HSET', request, 'cancel', 1)
  due_by(deadlines, counted_bytes, request_id, now_ms)
end

local known = redis.call('HMGET', request, 'state', 'version', 'task', 'fence', 'doubt', 'cancel', 'size', 'redrives',
  'deadline')
local version, known_task, fence, cancel = tonumber(known[2] or 0), tonumber(known[3] or 0), known[4], known[6]
local ahead = is_ahead(TERMINAL[known[1]], version, known[8], task_version, tonumber(redrives))
if TERMINAL[known[1]] then
  if not ahead then
    return
  end
  fence, cancel = false, false
end
-- A task of a life before says nothing of this one.
local is_of_this_life = tonumber(known[8] or 0) <= tonumber(redrives)
if is_of_this_life and forbidden(cancels, request_id, ARGV[13], ARGV[14], tonumber(ARGV[15])) then
  cancel = '1'
end

local was_claimed = tonumber(fence or 0) > 0
if known[1] and not ahead and (was_claimed or not known[5] or task_version <= known_task) then
  -- More is known of it than the task tells, but perhaps not that it counts, or that it was called off.
  if not known[7] then
    deadline_ms = math.max(deadline_ms, tonumber(known[9] or 0))
    redis.call('HSET', request, 'size', size_bytes, 'deadline', deadline_ms)
    count()
  end
  if known[1] == 'queued' and tonumber(ARGV[17]) > version then
    -- It was claimed, which is lost here.
    redis.call('HSET', request, 'doubt', 1)
  end
  if cancel then
    call_off(known[7] or size_bytes)
  end
  return
end

-- Each task has its own size, and an end that is not confirmed is still counted.
if known[7] and redis.call('ZREM', deadlines, known[7] .. ':' .. request_id) == 1 then
  redis.call('HINCRBY', load, 'bytes', 0 - known[7])
end
redis.call('DEL', request)
redis.call('HSET', request, 'state', state, 'version', math.max(version + 1, task_version, now_ms),
  'task', task_version, 'attempt', attempt, 'doubt', 1, 'size', size_bytes, 'deadline', deadline_ms,
  'summary', summary, 'origin', origin, 'redrives', redrives)
if ARGV[11] ~= '' then
  redis.call('HSET', request, 'lost', ARGV[11])
  redis.call('HINCRBY', request, 'attempt', ARGV[12])
end
-- A fence says that the request's own record causes nothing more: begun at the door again, it would forget its calls.
if fence or was_called then
  redis.call('HSET', request, 'fence', 0)
end
count()
if cancel then
  call_off(size_bytes)
end
