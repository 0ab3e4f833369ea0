-- Remembers a request once, counts it, and notes its deadline.
--
-- KEYS  request hash, load hash, deadlines set, birth of this store, cancellations set,
--       birth up to which ends were read back
-- ARGV  1 request id, 2 origin, 3 size in bytes, 4 deadline, 5 retention, both in ms;
--       6 requests to close at, 7 requests to reopen at, 8 bytes to close at, 9 bytes to reopen at;
--       10 summary, 11 when its record was written, 12 when it was sent, both in ms; 13 tenant, 14 correlation id;
--       15 how often it was redriven, 16 version and 17 number of calls of its last life
-- Gives {'admitted', version, attempt, repeated, cancelled} or {'settled', state, version, outcome, place}
--       or {'duplicate', state} or {'full', requests, bytes} or {'unborn'} or {'restoring'}

local request, load, deadlines, born, cancels = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local request_id, origin, size_bytes = ARGV[1], ARGV[2], ARGV[3]
local deadline_ms, retention_ms = tonumber(ARGV[4]), tonumber(ARGV[5])
local close_requests, reopen_requests = tonumber(ARGV[6]), tonumber(ARGV[7])
local close_bytes, reopen_bytes = tonumber(ARGV[8]), tonumber(ARGV[9])
local summary, recorded_ms, sent_ms = ARGV[10], tonumber(ARGV[11]), tonumber(ARGV[12])
local tenant, correlation = ARGV[13], ARGV[14]
local redrives, version, attempt = tonumber(ARGV[15]), tonumber(ARGV[16]) + 1, tonumber(ARGV[17]) + 1

local GIVEN_UP_AT_ONCE = 10
local REDRIVABLE = {failed = true, expired = true, cancelled = true, rejected = true}

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local known = redis.call('HMGET', request, 'state', 'version', 'fence', 'origin', 'attempt', 'redrives', 'size')
local state = known[1]
if not state then
  local reply = unproved(born, KEYS[6])
  if reply then
    return reply
  end
end
local new_life = state and REDRIVABLE[state] and redrives > tonumber(known[6] or 0)
if state and not new_life then
  -- What was read back from Kafka does not tell whose record it was: its end is published again, as it stands.
  if not known[4] and redis.call('HEXISTS', request, 'place') == 1 then
    return settled(request, state, tonumber(known[2]))
  end
  local same_record = known[4] == origin
  -- Once claimed, or waiting for another call, its task is in Kafka and will be read: the record itself has nothing more
  -- to cause.
  if known[3] or not same_record or state == 'retry_scheduled' then
    return {'duplicate', state}
  end
  if state == 'queued' then
    return {'admitted', tonumber(known[2]), tonumber(known[5]), 1, redis.call('HEXISTS', request, 'cancel')}
  end
  return settled(request, state, tonumber(known[2]))
end

-- What had no end for as long as Kafka keeps its task never will: its hash is gone. Without this it would be
-- counted for ever.
local too_old_ms = now_ms - while_alive(0, retention_ms)
local given_up = redis.call('ZRANGEBYSCORE', deadlines, '-inf', too_old_ms, 'LIMIT', 0, GIVEN_UP_AT_ONCE)
for _, member in ipairs(given_up) do
  redis.call('ZREM', deadlines, member)
  redis.call('HINCRBY', load, 'bytes', 0 - string.match(member, '^%d+'))
end

local held = redis.call('HMGET', load, 'bytes', 'closed')
local requests, bytes, was_closed = redis.call('ZCARD', deadlines), tonumber(held[1] or 0), held[2] == '1'
local closed = was_closed
if requests <= reopen_requests and bytes <= reopen_bytes then
  closed = false
end
if requests >= close_requests or bytes >= close_bytes then
  closed = true
end
if closed ~= was_closed then
  redis.call('HSET', load, 'closed', closed and 1 or 0)
end
if closed then
  return {'full', requests, bytes}
end

if new_life then
  version = math.max(version, known[2] + 1)
  attempt = math.max(attempt, (known[5] or 0) + 1)
  -- An end that is not confirmed is still counted.
  if known[7] and redis.call('ZREM', deadlines, known[7] .. ':' .. request_id) == 1 then
    redis.call('HINCRBY', load, 'bytes', 0 - known[7])
  end
  redis.call('DEL', request)
end
-- A deadline that has passed already counts from now: the request must not be forgotten, or given up, at once.
local due_ms = math.max(deadline_ms, now_ms)
redis.call('HSET', request, 'state', 'queued', 'version', version, 'task', version, 'attempt', attempt,
  'origin', origin, 'size', size_bytes, 'deadline', due_ms, 'summary', summary, 'redrives', redrives)
-- It may have been let in and called already, in a life of this store that is lost.
local in_doubt = recorded_ms <= tonumber(redis.call('GET', born) or 0)
if in_doubt then
  redis.call('HSET', request, 'doubt', 1)
end
local is_cancelled = forbidden(cancels, request_id, tenant, correlation, sent_ms)
if is_cancelled then
  redis.call('HSET', request, 'cancel', 1)
end
redis.call('PEXPIREAT', request, while_alive(due_ms, retention_ms))
redis.call('ZADD', deadlines, due_ms, size_bytes .. ':' .. request_id)
redis.call('HINCRBY', load, 'bytes', size_bytes)
return {'admitted', version, attempt, in_doubt and 1 or 0, is_cancelled and 1 or 0}
