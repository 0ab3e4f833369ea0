-- Tells when this store was born, and whether the ends that it lost at that birth have been read back from Kafka.
--
-- KEYS  birth of this store, birth up to which ends were read back
-- Gives {birth, 1 or 0} or {'unborn'}

local born, restored = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
if not born then
  return {'unborn'}
end
return {born, (born == '0' or born == restored) and 1 or 0}
