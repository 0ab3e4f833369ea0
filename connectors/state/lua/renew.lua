-- Prolongs leases. One that lapsed is prolonged too, as long as nobody else took it.
--
-- KEYS  request hashes
-- ARGV  1 length of the lease, 2 retention, both in ms, then the fence of each lease, then the version of each
-- Gives {positions, from 1, of the leases that are lost}, {those of requests that somebody cancelled}

local lease_ms, retention_ms = tonumber(ARGV[1]), tonumber(ARGV[2])

local time = redis.call('TIME')
local until_ms = time[1] * 1000 + math.floor(time[2] / 1000) + lease_ms

local TERMINAL = {completed = true, failed = true, expired = true, cancelled = true, rejected = true}

local lost, cancelled = {}, {}
for position, request in ipairs(KEYS) do
  local known = redis.call('HMGET', request, 'state', 'fence', 'until', 'deadline', 'cancel', 'version')
  local given_back = known[3] == '0'
  local is_forgotten = known[1] and not TERMINAL[known[1]]
    and tonumber(known[2] or 0) < tonumber(ARGV[position + 2])
    and tonumber(known[6]) <= tonumber(ARGV[position + 2 + #KEYS])
  if known[1] == 'processing' and known[2] == ARGV[position + 2] and not given_back then
    redis.call('HSET', request, 'until', until_ms)
    if until_ms > tonumber(known[4] or 0) then
      redis.call('PEXPIREAT', request, while_alive(until_ms, retention_ms))
    end
    if known[5] then
      table.insert(cancelled, position)
    end
  elseif not is_forgotten then
    -- One that this store has lost, and that nobody else took, is neither prolonged nor lost: it can be settled.
    table.insert(lost, position)
  end
end
return {lost, cancelled}
