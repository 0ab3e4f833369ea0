-- Reads one shared value, or replaces it if nobody wrote it in between.
--
-- KEYS  value hash
-- ARGV  nothing to read it; else 1 mark that it was read with ('' for none), 2 new mark, 3 time to live in ms,
--       4 new value (left out: it is deleted)
-- Gives {written, mark, value, now in ms}; written is 1 also where this very write came twice

-- So many others may write between a call and the same call again, which a client makes at once.
local MARKS_KEPT = 64

local held = redis.call('HMGET', KEYS[1], 'marks', 'value')
local marks, value = held[1] or '', held[2]
local mark = string.match(marks, '^%S+') or ''
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local expected, new_mark, ttl_ms, new_value = unpack(ARGV)

if not expected then
  return {0, mark, value, now_ms}
end
if string.find(' ' .. marks .. ' ', ' ' .. new_mark .. ' ', 1, true) then
  return {1, mark, value, now_ms}
end
if mark ~= expected then
  return {0, mark, value, now_ms}
end
local kept = {new_mark}
for earlier in string.gmatch(marks, '%S+') do
  if #kept == MARKS_KEPT then
    break
  end
  table.insert(kept, earlier)
end
redis.call('HSET', KEYS[1], 'marks', table.concat(kept, ' '))
if new_value then
  redis.call('HSET', KEYS[1], 'value', new_value)
else
  redis.call('HDEL', KEYS[1], 'value')
end
redis.call('PEXPIRE', KEYS[1], ttl_ms)
return {1, new_mark, new_value or false, now_ms}
