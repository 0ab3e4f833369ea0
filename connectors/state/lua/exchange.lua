-- Reads one shared value, or replaces it if nobody wrote it in between.
--
-- KEYS  value hash
-- ARGV  nothing to read it; else 1 mark that it was read with ('' for none), 2 new mark, 3 time to live in ms,
--       4 new value (left out: it is deleted)
-- Gives {written, mark, value, now in ms}; written is 1 also where this very write came twice

local held = redis.call('HMGET', KEYS[1], 'mark', 'value')
local mark, value = held[1] or '', held[2]
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local expected, new_mark, ttl_ms, new_value = unpack(ARGV)

if not expected then
  return {0, mark, value, now_ms}
end
if mark == new_mark then
  return {1, mark, value, now_ms}
end
if mark ~= expected then
  return {0, mark, value, now_ms}
end
if new_value then
  redis.call('HSET', KEYS[1], 'mark', new_mark, 'value', new_value)
  redis.call('PEXPIRE', KEYS[1], ttl_ms)
else
  redis.call('DEL', KEYS[1])
end
return {1, new_mark, new_value or false, now_ms}
