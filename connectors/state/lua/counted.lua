-- Tells what is counted, a part at a time.
--
-- KEYS  deadlines set
-- ARGV  1 cursor (0: from the beginning), 2 about how many to tell
-- Gives {next cursor (0: that was all), members `<size>:<id>`}

local part = redis.call('ZSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local members = {}
for index = 1, #part[2], 2 do
  table.insert(members, part[2][index])
end
return {tonumber(part[1]), members}
