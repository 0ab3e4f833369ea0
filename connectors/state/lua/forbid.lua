-- Notes a cancellation for requests that are still on their way here, and forgets those that have grown old.
--
-- KEYS  cancellations set
-- ARGV  1 which requests: length of id, length of tenant, id, tenant, correlation id, as `2:3:r1abcxyz`; 2 when it was
--       issued, 3 retention, both in ms; 4 how many to keep

local cancels = KEYS[1]
local which, issued_ms, retention_ms, kept = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local before_ms = tonumber(redis.call('ZSCORE', cancels, which) or 0)
redis.call('ZADD', cancels, math.max(before_ms, issued_ms), which)
redis.call('ZREMRANGEBYSCORE', cancels, '-inf', '(' .. now_ms - retention_ms)
redis.call('ZREMRANGEBYRANK', cancels, 0, -1 - kept)
redis.call('PEXPIRE', cancels, retention_ms)
