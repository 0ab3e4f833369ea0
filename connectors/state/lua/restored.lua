-- Notes that what this store lost at its birth, or before its run, has been read back from Kafka.
--
-- KEYS  birth of this store, birth up to which ends were read back, run that was last read back after
-- ARGV  1 birth, and 2 run (or empty), that were seen before: a store that was emptied since has lost it all again

if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('SET', KEYS[2], ARGV[1])
  if ARGV[2] ~= '' then
    redis.call('SET', KEYS[3], ARGV[2])
  end
end
