-- Notes ends that are in Kafka: their outcomes need not be kept. What is left says how the request ended.
--
-- KEYS  load hash, deadlines set, then request hashes
-- ARGV  1 retention in ms, then of each request: id, state, version, place of its result ('': all of it is published)

local load, deadlines = KEYS[1], KEYS[2]
local retention_ms = tonumber(ARGV[1])

local TERMINAL = {completed = true, failed = true, expired = true, cancelled = true, rejected = true}

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

for position = 3, #KEYS do
  local request, base = KEYS[position], 4 * (position - 3) + 1
  local request_id, end_state, end_version = ARGV[base + 1], ARGV[base + 2], tonumber(ARGV[base + 3])
  local place = ARGV[base + 4] ~= '' and ARGV[base + 4]
  local known = redis.call('HMGET', request, 'state', 'version', 'fence', 'origin', 'attempt', 'redrives', 'size',
    'task', 'outside', 'deadline')
  local state, version, size_bytes = known[1], tonumber(known[2] or 0), known[7]
  -- Of one that is taken for alive, an end tells unless it is that of a life before: then its task is newer. Its version
  -- may be higher all the same, where it is from the clock, or where two workers went on from the same task.
  local is_newer = state and version > end_version and (TERMINAL[state] or tonumber(known[8] or 0) > end_version)
  local is_same = TERMINAL[state] and version == end_version
  local is_noted = is_same and redis.call('HEXISTS', request, 'outcome') == 0
  if is_noted and not place then
    redis.call('HDEL', request, 'place')
  end
  -- No task's offset tells whether an end from outside of a lane is published: whoever did so tells.
  local is_left_to_others = is_same and place and known[9]
  if not (is_newer or is_noted or is_left_to_others) then
    -- One that this store did not know, or took for alive, ended while it was away.
    local kept = {'state', end_state, 'version', math.max(version, end_version)}
    local fence = known[3]
    if state ~= end_state or version < end_version then
      -- Ended by another than the last that claimed here: its record and its lease cause nothing more.
      fence = next_fence(fence, time)
    end
    local redrives = known[6] ~= '0' and known[6]
    for field, value in
      pairs({fence = fence, origin = known[4], attempt = known[5], redrives = redrives, place = place})
    do
      if value then
        table.insert(kept, field)
        table.insert(kept, value)
      end
    end
    -- Written afresh it takes 230 bytes instead of 660: a hash that ever held a value longer than
    -- hash-max-ziplist-value keeps the form that suits long values.
    local until_ms = after_end(tonumber(known[10] or 0), retention_ms, now_ms)
    if TERMINAL[state] then
      until_ms = now_ms + redis.call('PTTL', request)
    end
    redis.call('DEL', request)
    redis.call('HSET', request, unpack(kept))
    redis.call('PEXPIREAT', request, until_ms)
    if size_bytes and redis.call('ZREM', deadlines, size_bytes .. ':' .. request_id) == 1 then
      redis.call('HINCRBY', load, 'bytes', 0 - size_bytes)
      if redis.call('ZCARD', deadlines) == 0 then
        redis.call('DEL', load)
      end
    end
  end
end
