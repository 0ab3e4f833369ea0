-- Marks requests as cancelled, for whoever holds them, or will claim or sweep them.
--
-- KEYS  deadlines set, then request hashes
-- ARGV  their ids

local deadlines = KEYS[1]

-- By then whoever carries the cancellation out, or holds the request, has ended it. A sweep looks for what is left.
local GRACE_MS = 10000

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

for position = 2, #KEYS do
  local request = KEYS[position]
  local known = redis.call('HMGET', request, 'state', 'size')
  if known[1] == 'queued' or known[1] == 'processing' or known[1] == 'retry_scheduled' then
    redis.call('HSET', request, 'cancel', 1)
    due_by(deadlines, known[2] or '', ARGV[position - 1], now_ms + GRACE_MS)
  end
end
