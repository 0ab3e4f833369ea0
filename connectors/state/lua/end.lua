-- Ends a request that nobody holds, from outside of a lane: its deadline has passed, or it was cancelled.
--
-- KEYS  request hash, load hash, deadlines set
-- ARGV  1 request id, 2 version that was looked at, 3 terminal state, 4 outcome, 5 retention in ms,
--       6 version that it ends with
-- Gives nothing to the winner, and {'settled', state, version, outcome, place} to others

local request, load, deadlines = KEYS[1], KEYS[2], KEYS[3]
local request_id, seen_version, end_state = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local outcome, retention_ms, end_version = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])

local TERMINAL = {completed = true, failed = true, expired = true, cancelled = true, rejected = true}

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local known = redis.call('HMGET', request, 'state', 'version', 'until', 'size', 'deadline', 'fence')
local state, version, size_bytes = known[1], tonumber(known[2] or 0), known[4] or '0'
if TERMINAL[state] then
  -- The winner again: the reply that said so was lost on the way. Others bring another outcome.
  if state == end_state and version == end_version and redis.call('HGET', request, 'outcome') == outcome then
    return
  end
  return settled(request, state, version)
end
local held = state == 'processing' and tonumber(known[3] or 0) > now_ms
if not state or version ~= seen_version or held then
  return blocked(state or 'queued', version)
end

redis.call('HSET', request, 'state', end_state, 'version', end_version, 'outcome', outcome, 'size', size_bytes,
  'outside', 1)
-- Its summary stays until the end is confirmed: whoever publishes it again learns from it where to.
-- A fence says that what the request's own record causes is done: another delivery of it causes nothing more.
redis.call('HSET', request, 'fence', next_fence(known[6], time))
redis.call('PEXPIREAT', request, after_end(tonumber(known[5] or 0), retention_ms, now_ms))
-- It stays among those that are due until its end is confirmed: should the caller die now, another one publishes it.
if redis.call('ZADD', deadlines, now_ms, size_bytes .. ':' .. request_id) == 1 then
  redis.call('HINCRBY', load, 'bytes', size_bytes)
end
