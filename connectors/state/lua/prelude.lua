-- Stands before every script.

-- For how long Kafka keeps tasks (`schemas/topics.py`), and so somebody may come with one.
local KEPT_IN_KAFKA_MS = 7 * 86400000

-- Until when a request that has not ended is remembered: as long as anybody may come with its task. What is forgotten
-- has ended, so a task of it that comes later still causes nothing.
local function while_alive(deadline_ms, retention_ms)
  return deadline_ms + KEPT_IN_KAFKA_MS + retention_ms
end

-- Until when a request that has ended is remembered: its task may wait, unread, until long after the deadline.
local function after_end(deadline_ms, retention_ms, now_ms)
  return math.max(now_ms, math.min(deadline_ms, now_ms + KEPT_IN_KAFKA_MS)) + retention_ms
end

-- Whether a request that is not known has ended and was forgotten since, by the deadline of a task of it.
local function is_forgotten(task_deadline_ms, retention_ms, now_ms)
  return task_deadline_ms + retention_ms < now_ms
end

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

-- Whether a request that was asked for at `sent_ms` was called off, by its id, tenant or correlation id, alone or
-- together: there is one member for each way to name requests (see `forbid`).
local function forbidden(cancels, request_id, tenant, correlation, sent_ms)
  if redis.call('EXISTS', cancels) == 0 then
    return false
  end
  for _, id in ipairs({'', request_id}) do
    for _, of_tenant in ipairs({'', tenant}) do
      for _, correlated in ipairs({'', correlation}) do
        local lengths = #id .. ':' .. #of_tenant .. ':'
        local issued_ms = redis.call('ZSCORE', cancels, lengths .. id .. of_tenant .. correlated)
        if issued_ms and sent_ms <= tonumber(issued_ms) then
          return true
        end
      end
    end
  end
  return false
end

-- Whether a task is newer than all that is known: the store has lost what came between, or all, and believes the task.
-- A worker that was alone may have moved on what had ended meanwhile: an end gives way to a later life alone.
local function is_ahead(is_terminal, version, known_redrives, task_version, task_redrives)
  return task_version > version and (not is_terminal or task_redrives > tonumber(known_redrives or 0))
end

-- The fence of whoever comes next. From the clock as well, in microseconds: a lease of a life that this store has lost
-- must not pass for one of this.
local function next_fence(fence, time)
  return math.max(tonumber(fence or 0) + 1, time[1] * 1000000 + time[2])
end

-- Lets sweeps look at a request that is counted no later than this.
local function due_by(deadlines, size_bytes, request_id, at_ms)
  local member = size_bytes .. ':' .. request_id
  local due_ms = redis.call('ZSCORE', deadlines, member)
  if due_ms and tonumber(due_ms) > at_ms then
    redis.call('ZADD', deadlines, at_ms, member)
  end
end

-- The reply that says how a request has ended: with its outcome, or with the place of its result where the outcome is no
-- longer kept and nobody is known to have published the rest.
local function settled(request, state, version)
  local kept = redis.call('HMGET', request, 'outcome', 'place')
  return {'settled', state, version, kept[1], kept[2]}
end

-- The reply that says what stands in the way of a step: another claim, or a change since it was looked at.
local function blocked(state, version)
  return {'settled', state, version, false, false}
end

