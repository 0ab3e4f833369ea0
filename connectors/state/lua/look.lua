-- Tells what is known of requests, for those who would end them from outside.
--
-- KEYS  request hashes
-- Gives for each {state, version, summary, lease held for ms, attempt, owner, started, lost calls,
-- outcome, in doubt, cancelled} or an empty list

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local found = {}
for position, request in ipairs(KEYS) do
  local known = redis.call('HMGET', request, 'state', 'version', 'summary', 'until', 'attempt', 'owner', 'started',
    'lost', 'outcome', 'doubt', 'cancel')
  if known[1] then
    local held_ms, owner = 0, ''
    if known[1] == 'processing' then
      held_ms, owner = math.max(0, tonumber(known[4] or 0) - now_ms), known[6]
    end
    found[position] = {known[1], tonumber(known[2]), known[3] or '', held_ms, tonumber(known[5] or 1), owner,
      tonumber(known[7] or 0), known[8] or '', known[9], known[10] and 1 or 0, known[11] and 1 or 0}
  else
    found[position] = {}
  end
end
return found
