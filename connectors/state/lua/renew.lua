-- Prolongs leases. One that lapsed is prolonged too, as long as nobody else took it.
--
-- KEYS  request hashes
-- ARGV  1 length of the lease, 2 retention, both in ms, then of each lease: fence, version, number of its call, owner,
--       whether it is a worker's own, taken while this store was away
-- Gives {positions, from 1, of the leases that are lost}, {those of requests that somebody cancelled}

local lease_ms, retention_ms = tonumber(ARGV[1]), tonumber(ARGV[2])

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local until_ms = now_ms + lease_ms

local TERMINAL = {completed = true, failed = true, expired = true, cancelled = true, rejected = true}

local lost, cancelled = {}, {}
for position, request in ipairs(KEYS) do
  local base = 5 * (position - 1) + 2
  local fence, version, attempt, owner = ARGV[base + 1], tonumber(ARGV[base + 2]), ARGV[base + 3], ARGV[base + 4]
  local is_own = ARGV[base + 5] == '1'
  local known = redis.call('HMGET', request, 'state', 'fence', 'until', 'deadline', 'cancel', 'version')
  local state, held_until_ms = known[1], tonumber(known[3] or 0)
  local given_back = known[3] == '0'
  local held = state == 'processing' and known[2] == fence and not given_back
  -- As in `settle`: a worker's own lease, or one that this store has lost, and nobody took a later one.
  local stands = state and not TERMINAL[state] and tonumber(known[6]) <= version
  if is_own then
    stands = stands and (state == 'queued' or state == 'processing' and held_until_ms <= now_ms)
  else
    stands = stands and tonumber(known[2] or 0) < tonumber(fence)
  end
  if stands and not held and state ~= 'processing' then
    -- It becomes known here: nobody else is to claim, or to end, what is being called.
    redis.call('HSET', request, 'state', 'processing', 'version', version, 'fence', fence, 'attempt', attempt,
      'owner', owner, 'started', now_ms)
    redis.call('HDEL', request, 'token')
    held = true
  end
  if held then
    redis.call('HSET', request, 'until', until_ms)
    if until_ms > tonumber(known[4] or 0) then
      redis.call('PEXPIREAT', request, while_alive(until_ms, retention_ms))
    end
    if known[5] then
      table.insert(cancelled, position)
    end
  elseif not stands and not (is_own and not state) then
    -- One that stands where an older claim has not been taken over, or of which nothing is known, can be settled.
    table.insert(lost, position)
  end
end
return {lost, cancelled}
