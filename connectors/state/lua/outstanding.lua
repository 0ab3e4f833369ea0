-- Tells how much is admitted and not yet ended.
--
-- KEYS  load hash, deadlines set
-- Gives {requests, bytes}

return {redis.call('ZCARD', KEYS[2]), tonumber(redis.call('HGET', KEYS[1], 'bytes') or 0)}
