-- Moves a request to a terminal state, keeps its outcome, and takes it out of the count.
--
-- KEYS  request hash, load hash, deadlines set
-- ARGV  1 request id, 2 fence, 3 version of the lease, 4 terminal state, 5 outcome, 6 retention in ms,
--       7 whether the lease is a worker's own, taken while this store was away
-- Gives nothing to the winner, and {'settled', state, version, outcome, place} to others

local request, load, deadlines = KEYS[1], KEYS[2], KEYS[3]
local request_id, fence, lease_version = ARGV[1], ARGV[2], tonumber(ARGV[3])
local end_state, outcome, retention_ms, own_lease = ARGV[4], ARGV[5], tonumber(ARGV[6]), ARGV[7] == '1'

local TERMINAL = {completed = true, failed = true, expired = true, cancelled = true, rejected = true}

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local known = redis.call('HMGET', request, 'state', 'fence', 'until', 'version', 'size', 'deadline')
local state, version, size_bytes = known[1], tonumber(known[4]), known[5]
local same_fence = known[2] == fence
local held_until_ms = tonumber(known[3] or 0)

if TERMINAL[state] then
  -- The winner again: the reply that said so was lost on the way.
  if same_fence and state == end_state then
    return
  end
  return settled(request, state, version)
end
local held = state == 'processing' and same_fence and held_until_ms > 0
local stands = false
if own_lease then
  -- Nobody claimed it meanwhile, or whoever did before this store was away has let the lease run out.
  stands = state == 'queued' or state == 'processing' and held_until_ms <= now_ms
else
  -- Fences grow with each claim: a store that knows an older one has lost this claim, and no later one was made.
  stands = tonumber(known[2] or 0) < tonumber(fence)
end
if state and not (held or stands and version <= lease_version) then
  return blocked(state, version)
end

-- A request that the store has lost meanwhile is ended too: an outcome that was paid for is never dropped.
redis.call('HSET', request, 'state', end_state, 'version', math.max(version or 0, lease_version) + 1, 'fence', fence,
  'outcome', outcome)
redis.call('HDEL', request, 'summary')
redis.call('PEXPIREAT', request, after_end(tonumber(known[6] or 0), retention_ms, now_ms))
-- To be in the set is to be counted, so nothing can be taken out of the count twice.
if size_bytes and redis.call('ZREM', deadlines, size_bytes .. ':' .. request_id) == 1 then
  redis.call('HINCRBY', load, 'bytes', 0 - size_bytes)
  if redis.call('ZCARD', deadlines) == 0 then
    redis.call('DEL', load)
  end
end
