-- KEEP: what the server keeps of how far a node's agents have read the log of topics.
--
-- KEYS[1]  the partition's tag
-- ARGV     what, node, the number of the node's call before this one (-1: whatever it was), this
--          call's number, seconds for which a node that says no more is remembered; then
--   join         agent, agent, ...                  they begin at the end of the log
--   resume       agent, node that had it ('': none), ...  they go on where they were
--   park         agent, point, agent, point, ...    they are left to whoever comes
--   forget       agent, agent, ...
--   save         point last read, id there ('': not known), watermark, 1 for all anew, how many points,
--                agent, point, ..., then agents whose point is the watermark from now on
--   leave        the node has no agents any more
--   subscribe    agent, subscription; and the point where it began, if it is told again
--   unsubscribe  agent, subscription
-- Returns  'OK ...' | 'RESET' the log is not the one that was read | 'LOST' the call before is not
--          known | 'STALE' a newer call came before | 'FENCED' another node has the agent
--
-- A node's agent is at the watermark of the node, unless `lag` has a point of its own for it; there
-- '>node' says that another node has it now. Only a node writes its own record, in calls that it
-- numbers: one that comes twice is done once, and one that comes late is not done.
local tag, what, node, before, this = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local record, lag = tag .. ':t:n:' .. node, tag .. ':t:lag:' .. node
local parked, stream = tag .. ':t:parked', tag .. ':t:log'
redis.call('DEL', tag .. ':none')  -- a first write that an exhausted memory allows
local got = redis.call('HMGET', record, 'call', 'answer', 'w')
local known, mark = tonumber(got[1] or 0), got[3]
if known == this then return got[2] end
if known > this then return 'STALE' end
if before >= 0 and known ~= before then return 'LOST' end

local ends = redis.call('HMGET', tag .. ':t', 'n', 'ms')
local last = (ends[2] or '0') .. '-' .. (ends[1] or '0')

local function number(point) return tonumber(string.match(point, '%-(%d+)$')) end

local function is_elsewhere(agent)
  return string.sub(redis.call('HGET', lag, agent) or '', 1, 1) == '>'
end

local function is_there(point, id)
  if number(point) > number(last) then return false end
  local here = redis.call('XRANGE', stream, point, point)[1]
  if here then return id == '' or string.sub(here[2][2], 15, 30) == id end
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  return not first or number(point) < number(first[1])
end

local function answered(answer)
  redis.call('HSET', record, 'call', ARGV[4], 'answer', answer, 'w', mark or last)
  redis.call('EXPIRE', record, ARGV[5])
  redis.call('EXPIRE', lag, ARGV[5])
  return answer
end

if what == 'join' then
  for at = 6, #ARGV do
    if mark and mark ~= last then
      redis.call('HSET', lag, ARGV[at], last)
    else
      redis.call('HDEL', lag, ARGV[at])
    end
    redis.call('HDEL', parked, ARGV[at])
  end
  return answered('OK ' .. last .. ' ' .. (mark or last))
end

local function resumed(agent, from)
  local point = nil
  for _ = 1, 16 do
    if from == '' then break end
    point = redis.call('HGET', tag .. ':t:lag:' .. from, agent) or nil
    if not point or string.sub(point, 1, 1) ~= '>' then break end
    from, point = string.sub(point, 2), nil
  end
  point = point or redis.call('HGET', parked, agent) or nil
  if not point and from ~= '' then point = redis.call('HGET', tag .. ':t:n:' .. from, 'w') end
  redis.call('HSET', lag, agent, point or last)
  redis.call('HDEL', parked, agent)
  if from ~= '' and from ~= node then
    redis.call('HSET', tag .. ':t:lag:' .. from, agent, '>' .. node)
    redis.call('EXPIRE', tag .. ':t:lag:' .. from, ARGV[5])
  end
  return ' ' .. (point or last) .. (point and ' 1' or ' 0')
end

if what == 'resume' then
  local points = {}
  for at = 6, #ARGV, 2 do points[#points + 1] = resumed(ARGV[at], ARGV[at + 1]) end
  return answered('OK ' .. (mark or last) .. table.concat(points))
end

if what == 'park' then
  for at = 6, #ARGV, 2 do
    if not is_elsewhere(ARGV[at]) then
      redis.call('HSET', parked, ARGV[at], ARGV[at + 1])
      redis.call('HDEL', lag, ARGV[at])
    end
  end
  return answered('OK')
end

if what == 'forget' then
  for at = 6, #ARGV do
    if not is_elsewhere(ARGV[at]) then
      redis.call('HDEL', parked, ARGV[at])
      redis.call('HDEL', lag, ARGV[at])
      redis.call('DEL', tag .. ':t:subs:' .. ARGV[at])
    end
  end
  return answered('OK')
end

if what == 'leave' then
  redis.call('DEL', record, lag)
  return 'OK'
end

if what == 'save' then
  if not is_there(ARGV[6], ARGV[7]) then return 'RESET' end
  if ARGV[9] == '1' then
    local all = redis.call('HGETALL', lag)
    for at = 1, #all, 2 do
      if string.sub(all[at + 1], 1, 1) ~= '>' then redis.call('HDEL', lag, all[at]) end
    end
  end
  local rest = 11 + 2 * tonumber(ARGV[10])
  for at = 11, rest - 1, 2 do
    if not is_elsewhere(ARGV[at]) then redis.call('HSET', lag, ARGV[at], ARGV[at + 1]) end
  end
  for at = rest, #ARGV do
    if not is_elsewhere(ARGV[at]) then redis.call('HDEL', lag, ARGV[at]) end
  end
  mark = ARGV[8]
  return answered('OK')
end

local agent, subscription = ARGV[6], ARGV[7]
if is_elsewhere(agent) then return 'FENCED' end
local all = tag .. ':t:subs:' .. agent
if what == 'subscribe' then
  redis.call('HSETNX', all, subscription, ARGV[8] or last)
  return answered('OK ' .. redis.call('HGET', all, subscription))
end
redis.call('HDEL', all, subscription)
return answered('OK')
