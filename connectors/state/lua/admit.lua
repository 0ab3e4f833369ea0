-- Remembers a request once, counts it, and notes its deadline.
--
-- KEYS  request hash, load hash, deadlines set
-- ARGV  1 request id, 2 origin, 3 size in bytes, 4 deadline, 5 retention, both in ms;
--       6 requests to close at, 7 requests to reopen at, 8 bytes to close at, 9 bytes to reopen at
-- Gives {'admitted', version, repeated} or {'settled', state, version, outcome} or {'duplicate', state}
--       or {'full', requests, bytes}

local request, load, deadlines = KEYS[1], KEYS[2], KEYS[3]
local request_id, origin, size_bytes = ARGV[1], ARGV[2], ARGV[3]
local deadline_ms, retention_ms = tonumber(ARGV[4]), tonumber(ARGV[5])
local close_requests, reopen_requests = tonumber(ARGV[6]), tonumber(ARGV[7])
local close_bytes, reopen_bytes = tonumber(ARGV[8]), tonumber(ARGV[9])

local GIVEN_UP_AT_ONCE = 10

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local known = redis.call('HMGET', request, 'state', 'version', 'fence', 'origin')
local state, version, fence = known[1], known[2], known[3]
if state then
  local same_record = known[4] == origin
  -- Once claimed, its lane task is in Kafka and will be read: the record itself has nothing more to cause.
  if fence or not same_record then
    return {'duplicate', state}
  end
  if state == 'queued' then
    return {'admitted', tonumber(version), 1}
  end
  return {'settled', state, tonumber(version), redis.call('HGET', request, 'outcome')}
end

-- What had no end for a whole retention past its deadline never will: its hash is gone. Without this it would be
-- counted for ever.
local given_up = redis.call('ZRANGEBYSCORE', deadlines, '-inf', now_ms - retention_ms, 'LIMIT', 0, GIVEN_UP_AT_ONCE)
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

-- A deadline that has passed already counts from now: the request must not be forgotten, or given up, at once.
local due_ms = math.max(deadline_ms, now_ms)
redis.call('HSET', request, 'state', 'queued', 'version', 1, 'attempt', 1,
  'origin', origin, 'size', size_bytes, 'deadline', due_ms)
redis.call('PEXPIREAT', request, due_ms + retention_ms)
redis.call('ZADD', deadlines, due_ms, size_bytes .. ':' .. request_id)
redis.call('HINCRBY', load, 'bytes', size_bytes)
return {'admitted', 1, 0}
