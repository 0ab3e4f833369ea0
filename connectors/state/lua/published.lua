-- Forgets outcomes that are in Kafka. What is left says that the request is known, and how it ended.
--
-- KEYS  request hashes

for _, request in ipairs(KEYS) do
  if redis.call('HEXISTS', request, 'outcome') == 1 then
    local known = redis.call('HMGET', request, 'state', 'version', 'fence', 'origin')
    local kept = {}
    for index, field in ipairs({'state', 'version', 'fence', 'origin'}) do
      if known[index] then
        table.insert(kept, field)
        table.insert(kept, known[index])
      end
    end
    local retention_ms = redis.call('PTTL', request)
    -- Written afresh, it is stored in a fraction of the memory: a hash that held one long value stays in the form
    -- for long values (hash-max-ziplist-value).
    redis.call('DEL', request)
    redis.call('HSET', request, unpack(kept))
    redis.call('PEXPIRE', request, retention_ms)
  end
end
