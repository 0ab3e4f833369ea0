-- Notes when this store began to know of requests. Only the first call has an effect.
--
-- KEYS  birth of this store
-- ARGV  1 whether there was none before it, so that nothing older needs to be doubted

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('SET', KEYS[1], ARGV[1] == '1' and 0 or now_ms, 'NX')
