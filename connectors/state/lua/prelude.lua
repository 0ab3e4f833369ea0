-- Stands before every script.

-- What this store does not know may have had a life in one that is lost. Nobody can tell before the store has a birth,
-- and what is in Kafka was read back. Gives the reply that says so, or nothing where the store can be believed.
local function unproved(born, restored)
  local born_ms = redis.call('GET', born)
  if not born_ms then
    return {'unborn'}
  end
  if born_ms ~= '0' and redis.call('GET', restored) ~= born_ms then
    return {'restoring'}
  end
end

