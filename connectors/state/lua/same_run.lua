-- Tells whether this is the run of the server whose data was last known to be whole. A restart or a failover begins another
-- one, and may have lost the last steps.
--
-- KEYS  run that was last read back after
-- Gives {1 or 0, run}, and an empty run where the server does not tell

local info = redis.pcall('INFO', 'replication')
local run = type(info) == 'string' and string.match(info, 'master_replid:(%w+)')
if not run then
  return {1, ''}
end
redis.call('SET', KEYS[1], run, 'NX')
return {redis.call('GET', KEYS[1]) == run and 1 or 0, run}
