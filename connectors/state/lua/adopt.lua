-- Notes a task that was found in Kafka after this store was emptied: its request is alive, and may have been called.
--
-- KEYS  request hash, load hash, deadlines set
-- ARGV  1 state, 2 version of the task, 3 number of its next call, 4 request id, 5 size in bytes, 6 deadline,
--       7 retention, both in ms; 8 summary, 9 origin, 10 how often it was redriven,
--       11 calls that may have been made and left no outcome, as JSON or empty, 12 how many

local request, load, deadlines = KEYS[1], KEYS[2], KEYS[3]
local state, task_version, attempt = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local request_id, size_bytes, retention_ms = ARGV[4], ARGV[5], tonumber(ARGV[7])
local summary, origin, redrives = ARGV[8], ARGV[9], ARGV[10]

local TERMINAL = {completed = true, failed = true, expired = true, cancelled = true, rejected = true}

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local known = redis.call('HMGET', request, 'state', 'version', 'task', 'fence', 'doubt', 'cancel', 'size')
local version, known_task, cancel = tonumber(known[2] or 0), tonumber(known[3] or 0), known[6]
if TERMINAL[known[1]] then
  -- Of another life, if the task is newer than that end.
  if task_version <= version then
    return
  end
  cancel = false
elseif known[1] and (known[4] or not known[5] or task_version <= known_task) then
  return
end

local deadline_ms = math.max(tonumber(ARGV[6]), now_ms)
-- Each task has its own size, and an end that is not confirmed is still counted.
if known[7] and redis.call('ZREM', deadlines, known[7] .. ':' .. request_id) == 1 then
  redis.call('HINCRBY', load, 'bytes', 0 - known[7])
end
redis.call('DEL', request)
redis.call('HSET', request, 'state', state, 'version', math.max(version + 1, task_version, now_ms),
  'task', task_version, 'attempt', attempt, 'doubt', 1, 'size', size_bytes, 'deadline', deadline_ms,
  'summary', summary, 'origin', origin, 'redrives', redrives)
if cancel then
  redis.call('HSET', request, 'cancel', 1)
end
if ARGV[11] ~= '' then
  redis.call('HSET', request, 'lost', ARGV[11])
  redis.call('HINCRBY', request, 'attempt', ARGV[12])
end
redis.call('PEXPIREAT', request, deadline_ms + retention_ms)
if redis.call('ZADD', deadlines, deadline_ms, size_bytes .. ':' .. request_id) == 1 then
  redis.call('HINCRBY', load, 'bytes', size_bytes)
end
