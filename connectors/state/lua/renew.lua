-- Prolongs leases. One that lapsed is prolonged too, as long as nobody else took it.
--
-- KEYS  request hashes
-- ARGV  1 length of the lease, 2 retention, both in ms, then the fence of each lease
-- Gives {positions, from 1, of the leases that are lost}, {those of requests that somebody cancelled}

local lease_ms, retention_ms = tonumber(ARGV[1]), tonumber(ARGV[2])

local time = redis.call('TIME')
local until_ms = time[1] * 1000 + math.floor(time[2] / 1000) + lease_ms

local lost, cancelled = {}, {}
for position, request in ipairs(KEYS) do
  local known = redis.call('HMGET', request, 'state', 'fence', 'until', 'deadline', 'cancel')
  local given_back = known[3] == '0'
  if known[1] == 'processing' and known[2] == ARGV[position + 2] and not given_back then
    redis.call('HSET', request, 'until', until_ms)
    if until_ms > tonumber(known[4] or 0) then
      redis.call('PEXPIREAT', request, until_ms + retention_ms)
    end
    if known[5] then
      table.insert(cancelled, position)
    end
  else
    table.insert(lost, position)
  end
end
return {lost, cancelled}
