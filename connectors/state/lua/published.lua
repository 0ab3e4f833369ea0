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
    -- Written afresh it takes 230 bytes instead of 660: a hash that ever held a value longer than
    -- hash-max-ziplist-value keeps the form that suits long values.
    redis.call('DEL', request)
    redis.call('HSET', request, unpack(kept))
    redis.call('PEXPIRE', request, retention_ms)
  end
end
