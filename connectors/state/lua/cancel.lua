-- Marks requests as cancelled, for whoever holds them or will claim them.
--
-- KEYS  request hashes

for _, request in ipairs(KEYS) do
  local state = redis.call('HGET', request, 'state')
  if state == 'queued' or state == 'processing' or state == 'retry_scheduled' then
    redis.call('HSET', request, 'cancel', 1)
  end
end
