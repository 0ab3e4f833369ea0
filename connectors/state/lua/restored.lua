-- Notes that the ends that this store lost at its birth have been read back from Kafka.
--
-- KEYS  birth of this store, birth up to which ends were read back
-- ARGV  1 birth that was seen before the ends were read: a store that was emptied since has lost them again

if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('SET', KEYS[2], ARGV[1])
end
