-- Tells which counted requests are past their deadline, the oldest first.
--
-- KEYS  deadlines set
-- ARGV  1 how many to tell
-- Gives members `<size>:<id>`

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'LIMIT', 0, ARGV[1])
