-- SEND: put messages of one producer into the inboxes of agents of this partition.
--
-- KEYS[1]  the partition's tag; every other key is it and a name
-- ARGV     producer, capacity, bytes, 1 if unknown agents are made, a bell and what it is rung with
--          besides ('' for neither), then loads. A load is: an agent, how many messages, the sequence
--          of the first (the others follow), base, and the level of all, with an item each; or '-'
--          for the level, and for each message 4: level, ttl in ms (0: none), delay in ms (0: none),
--          item
-- Returns  one word for each load: OK, or how many were taken and why the next was not:
--          GAP <last>, FULL <depth>, DROP <depth>, NOAGENT <1 if we have sent to it before>
--
-- An item is 14 zeros, id and blob. Sequences count per producer and agent. One that was taken is
-- not taken again, so a call may be repeated; one that is too high is GAP, so what failed before
-- it cannot be overtaken. With base = 1 it is not too high, whatever is missing before it. DROP is
-- FULL for an inbox whose policy is not to wait; its number is free as well.
--
-- An owner that has seen all there was is given the few small messages that come now along with
-- its bell, which saves it a FETCH. They stay here, and ready, until they are acknowledged: a bell
-- that nobody hears costs time. ``seen`` says that nothing waits that no bell rang for. One message
-- to the node of that bell, too, rings once for both: 'wi', the size of the other, it, and its own.
local tag, producer, create = KEYS[1], ARGV[1], ARGV[4] == '1'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answers, rung, due_sooner = {}, {}, false
local MOST_ALONG, MOST_BYTES, MOST_DEPTH, NO_ID = 8, 8192, 64, string.rep('\0', 16)

local function number(value) return string.format('%.0f', value) end

local function hold(agent, level, ttl, delay, body)
  local when, id = now + delay, string.sub(body, 1, 16)
  local first = redis.call('ZRANGE', tag .. ':due', 0, 0, 'WITHSCORES')
  if not first[2] or when < tonumber(first[2]) then due_sooner = true end
  redis.call('ZADD', tag .. ':due', when, id)
  redis.call('HSET', tag .. ':dueb', id, agent .. ' ' .. level .. ' ' .. ttl .. ' ' .. body)
end

-- Producers that have sent nothing for longer than any of them may repeat.
local function forget_old_producers(meta)
  local fields = redis.call('HGETALL', meta)
  for at = 1, #fields, 2 do
    local sent = string.sub(fields[at], 1, 2) == 'p:' and tonumber(string.match(fields[at + 1], ' (%d+)$'))
    if sent and now - sent > 660000 then redis.call('HDEL', meta, fields[at]) end
  end
end

-- How many of a load were taken before; and why it is not taken now, if so.
local function known(word, count, first, base)
  local last = tonumber(string.match(word or '', '^%d+') or 0)
  if first > last + 1 and not base then return 0, 'GAP ' .. number(last) end
  return math.max(0, math.min(count, last - first + 1))
end

-- Ring with messages: a line of words, the id of what is before them, and they themselves.
local function ring_with(owner, agent, token, level, position, last, ...)
  local items = {...}
  local words = {'in', agent, token, level, number(position), number(now)}
  for _, item in ipairs(items) do words[#words + 1] = #item end
  local before = last and string.sub(last, 15, 30) or NO_ID
  redis.call('PUBLISH', tag .. ':bell:' .. owner, table.concat(words, ' ') .. '\n' .. before .. table.concat(items))
end

local function give(agent, count, first, base, plan, at)
  local meta, field = tag .. ':a:' .. agent, 'p:' .. producer
  local got = redis.call('HMGET', meta, field, 'depth', 'node', 'bytes', 'cap', 'v', 'end', 'ovf', 'seen',
    'tok', 'h0', 'h1', 'h2', 'h3')
  local before, why = known(got[1], count, first, base)
  if before == count then return before end  -- also where the agent has ended since
  -- 1: it ended. 0 to who has sent before: the server lost what it knew.
  if got[7] or (not got[6] and not create) then return before, got[1] and 'NOAGENT 1' or 'NOAGENT 0' end
  if why then return before, why end

  local depth, bytes = tonumber(got[2] or 0), tonumber(got[4] or 0)
  local cap, capb = tonumber(got[5] or ARGV[2]), tonumber(ARGV[3])
  local owner, taken, waits, along, urgent = got[3] or '', before, false, false, false
  local changed = {}
  -- Whether there is room for one more, and then it has it. URGENT ones find a tenth more.
  local function enters(level, size)
    local more = level == '0' and 1.1 or 1
    if depth >= math.ceil(cap * more) or (depth > 0 and bytes + size > math.ceil(capb * more)) then
      why = ((not got[8] or got[8] == 'block') and 'FULL ' or 'DROP ') .. number(depth)
      return false
    end
    depth, bytes, taken = depth + 1, bytes + size, taken + 1
    return true
  end

  local function push(level, ...)
    local list, last = tag .. ':i:' .. agent .. ':' .. level, nil
    along = got[9] and owner ~= '' and taken - before <= MOST_ALONG and depth <= MOST_DEPTH
      and bytes - tonumber(got[4] or 0) <= MOST_BYTES
    if along and got[2] and got[2] ~= '0' then last = redis.call('LINDEX', list, -1) end
    local tail = tonumber(got[11 + level] or 0) + redis.call('RPUSH', list, ...)
    if along then
      ring_with(owner, agent, got[10], level, tail - select('#', ...), last, ...)
      changed[#changed + 1] = 'hw' .. level
      changed[#changed + 1] = number(tail)
    end
    waits, urgent = true, urgent or level == '0'
  end

  if plan ~= '-' then
    while taken < count and enters(plan, #ARGV[at + taken]) do end
    if taken > before then push(plan, unpack(ARGV, at + before, at + taken - 1)) end
  else
    local lists = {}
    while taken < count do
      local one = at + taken * 4
      local level, ttl, delay, item = ARGV[one], ARGV[one + 1], ARGV[one + 2], ARGV[one + 3]
      if delay ~= '0' then
        hold(agent, level, ttl, tonumber(delay), string.sub(item, 15))
        taken = taken + 1
      elseif enters(level, #item) then
        if ttl ~= '0' then item = string.format('%013.0f0', now + tonumber(ttl)) .. string.sub(item, 15) end
        local list = lists[level] or {}
        list[#list + 1] = item
        lists[level] = list
      else
        break
      end
    end
    for level, list in pairs(lists) do push(level, unpack(list)) end
  end

  if why then redis.call('HSET', meta, 'full', number(cap)) end
  if taken == before then return taken, why end
  if not got[1] and redis.call('HLEN', meta) > 64 then forget_old_producers(meta) end
  redis.call('HSET', meta, 'v', '1', 'depth', number(depth), 'bytes', number(bytes),
    field, number(first + taken - 1) .. ' ' .. number(now),
    unpack(changed))
  if waits then
    if owner == '' then owner = '-' end
    local first = redis.call('SADD', tag .. ':rdy:' .. owner, agent) == 1
    if not along then
      if got[9] then redis.call('HDEL', meta, 'seen') end
      -- Who has fetched enough for now looks for what is urgent all the same.
      if first or got[9] or urgent then rung[owner] = (rung[owner] or '') .. ' ' .. agent end
    end
  end
  return taken, why
end

-- Events and broadcasts go to no inbox but to the log of topics; see topics/log.py.
local function publish(count, first, base, plan, at)
  local meta, producers = tag .. ':t', tag .. ':t:p'
  local before, why = known(redis.call('HGET', producers, producer), count, first, base)
  if why or before == count then return before, why end
  local got = redis.call('HMGET', meta, 'n', 'ms', 'bytes')
  local last, bytes = tonumber(got[1] or 0), tonumber(got[3] or 0)
  local ms = number(math.max(now, tonumber(got[2] or 0)))
  for nth = before, count - 1 do
    local level, ttl, item = plan, 0, ARGV[at + nth]
    if plan == '-' then
      level, ttl, item = ARGV[at + nth * 4], tonumber(ARGV[at + nth * 4 + 1]), ARGV[at + nth * 4 + 3]
    end
    last, bytes = last + 1, bytes + #item
    local head = string.format('%013.0f', ttl > 0 and now + ttl or 0) .. level
    redis.call('XADD', tag .. ':t:log', ms .. '-' .. number(last), 'e', head .. string.sub(item, 15))
  end
  redis.call('HSET', meta, 'n', number(last), 'ms', ms, 'bytes', number(bytes))
  redis.call('HSET', producers, producer, number(first + count - 1) .. ' ' .. number(now))
  rung['%20topics'] = ''
  return count
end

-- What ``give`` does with one message that somebody waits for, where there is nothing to consider:
-- half the time of a question to an idle agent was that. False, and nothing done: there is.
local function give_one(agent, first, level, ttl, item)
  local meta, field = tag .. ':a:' .. agent, 'p:' .. producer
  local got = redis.call('HMGET', meta, field, 'depth', 'node', 'bytes', 'cap', 'v', 'end', 'seen', 'tok', 'h' .. level)
  local last, node = string.match(got[1] or '', '^%d+'), got[3]
  local depth, bytes = tonumber(got[2] or 0), tonumber(got[4] or 0) + #item
  if tonumber(last) ~= tonumber(first) - 1 or got[7] or not got[6] or not got[8] or (node or '') == ''
    or depth >= math.min(tonumber(got[5] or ARGV[2]), MOST_DEPTH) or #item > MOST_BYTES
    or bytes > tonumber(ARGV[3]) then return false end

  local list, time_of_it = tag .. ':i:' .. agent .. ':' .. level, number(now)
  if ttl ~= '0' then item = string.format('%013.0f0', now + tonumber(ttl)) .. string.sub(item, 15) end
  local before = depth > 0 and redis.call('LINDEX', list, -1)
  local position = tonumber(got[10] or 0) + redis.call('RPUSH', list, item) - 1
  local bell, besides = tag .. ':bell:' .. node, ''
  if bell == ARGV[5] then
    besides = 'wi ' .. #ARGV[6] .. ' ' .. ARGV[6]
  elseif ARGV[5] ~= '' then
    redis.call('PUBLISH', ARGV[5], ARGV[6])
  end
  redis.call('PUBLISH', bell, besides .. 'in ' .. agent .. ' ' .. got[9] .. ' ' .. level .. ' ' .. number(position)
    .. ' ' .. time_of_it .. ' ' .. #item .. '\n' .. (before and string.sub(before, 15, 30) or NO_ID) .. item)
  redis.call('HSET', meta, 'depth', number(depth + 1), 'bytes', number(bytes), field, first .. ' ' .. time_of_it,
    'hw' .. level, number(position + 1))
  redis.call('SADD', tag .. ':rdy:' .. node, agent)
  return true
end

if #ARGV == 15 and ARGV[8] == '1' and ARGV[11] == '-' and ARGV[14] == '0' and ARGV[7] ~= '%20topics'
  and give_one(ARGV[7], ARGV[9], ARGV[12], ARGV[13], ARGV[15]) then return {'OK'} end

if ARGV[5] ~= '' then redis.call('PUBLISH', ARGV[5], ARGV[6]) end
local at = 7
while at < #ARGV do
  local agent, count, first, base, plan = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3] == '1', ARGV[at + 4]
  local taken, why
  if agent == '%20topics' then
    taken, why = publish(count, first, base, plan, at + 5)
  else
    taken, why = give(agent, count, first, base, plan, at + 5)
  end
  answers[#answers + 1] = why and taken .. ' ' .. why or 'OK'
  at = at + 5 + count * (plan == '-' and 4 or 1)
end
-- Who has work is named while that is short: it saves the owner a look.
for owner, names in pairs(rung) do
  redis.call('PUBLISH', tag .. ':bell:' .. owner, #names < 2000 and 'at' .. names or 'work')
end
if due_sooner then redis.call('PUBLISH', tag .. ':bell', 'due') end
return answers
