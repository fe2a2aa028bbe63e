-- SEND: put messages of one producer into the inboxes of agents of this partition.
--
-- KEYS[1]  the partition's tag; every other key is it and a name
-- ARGV     producer, capacity, bytes, 1 if unknown agents are made, then for each agent:
--          its name, how many messages, and for each of those 6:
--          sequence, level, ttl in ms (0: none), delay in ms (0: none), base, id and blob
-- Returns  one word for each: OK, DUP, GAP <last>, FULL <depth>, DROP <depth>, NOAGENT <1 if
--          we have sent to it before>
--
-- Sequences count per producer and agent. One that was taken is DUP, so a call may be
-- repeated; one that is too high is GAP, so what failed before it cannot be overtaken. With
-- base = 1 it is not too high, whatever is missing before it. DROP is FULL for an inbox
-- whose policy is not to wait; its number is free as well.
local tag, producer, create = KEYS[1], ARGV[1], ARGV[4] == '1'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answers, rung, due_sooner = {}, {}, false

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

local function give(agent, from, count)
  local meta, field = tag .. ':a:' .. agent, 'p:' .. producer
  local got = redis.call('HMGET', meta, field, 'depth', 'node', 'bytes', 'cap', 'capb', 'v', 'end', 'ovf')
  local last = tonumber(string.match(got[1] or '', '^%d+') or 0)
  local depth, bytes = tonumber(got[2] or 0), tonumber(got[4] or 0)
  local cap, capb = tonumber(got[5] or ARGV[2]), tonumber(got[6] or ARGV[3])
  local lists, taken, full = {}, 0, false
  for at = from, from + (count - 1) * 6, 6 do
    local sequence, level = tonumber(ARGV[at]), ARGV[at + 1]
    local base, body = ARGV[at + 4] == '1', ARGV[at + 5]
    local more = level == '0' and 1.1 or 1
    local size = #body + 14
    local answer = 'OK'
    if got[8] or (not got[7] and not create) then
      -- 1: it ended. 0 to who has sent before: the server lost what it knew.
      answer = got[1] and 'NOAGENT 1' or 'NOAGENT 0'
    elseif sequence <= last then
      answer = 'DUP'
    elseif sequence > last + 1 and not base then
      answer = 'GAP ' .. string.format('%.0f', last)
    elseif ARGV[at + 3] ~= '0' then
      hold(agent, level, ARGV[at + 2], tonumber(ARGV[at + 3]), body)
      last, taken = sequence, taken + 1
    elseif depth >= math.ceil(cap * more) or (depth > 0 and bytes + size > math.ceil(capb * more)) then
      local waits = not got[9] or got[9] == 'block'
      answer = (waits and 'FULL ' or 'DROP ') .. string.format('%.0f', depth)
      full = true
    else
      local head = '00000000000000'
      if ARGV[at + 2] ~= '0' then head = string.format('%013.0f0', now + tonumber(ARGV[at + 2])) end
      local list = lists[level] or {}
      list[#list + 1] = head .. body
      lists[level] = list
      last, depth, bytes, taken = sequence, depth + 1, bytes + size, taken + 1
    end
    answers[#answers + 1] = answer
  end
  if full then redis.call('HSET', meta, 'full', '1') end
  if taken == 0 then return end
  if not got[1] and redis.call('HLEN', meta) > 64 then forget_old_producers(meta) end
  for level, list in pairs(lists) do
    redis.call('RPUSH', tag .. ':i:' .. agent .. ':' .. level, unpack(list))
  end
  redis.call('HSET', meta, 'v', '1', 'depth', string.format('%.0f', depth), 'bytes', string.format('%.0f', bytes),
    field, string.format('%.0f %.0f', last, now))
  if next(lists) then
    local owner = got[3] or ''
    if owner == '' then owner = '-' end
    if redis.call('SADD', tag .. ':rdy:' .. owner, agent) == 1 then
      rung[owner] = (rung[owner] or '') .. ' ' .. agent
    end
  end
end

-- Events and broadcasts go to no inbox but to the log of topics; see topics/log.py.
local function publish(from, count)
  local meta, producers = tag .. ':t', tag .. ':t:p'
  local got = redis.call('HMGET', meta, 'n', 'ms')
  local last = tonumber(string.match(redis.call('HGET', producers, producer) or '', '^%d+') or 0)
  local number, taken = tonumber(got[1] or 0), 0
  local ms = string.format('%.0f', math.max(now, tonumber(got[2] or 0)))
  for at = from, from + (count - 1) * 6, 6 do
    local sequence, ttl = tonumber(ARGV[at]), tonumber(ARGV[at + 2])
    local answer = 'OK'
    if sequence <= last then
      answer = 'DUP'
    elseif sequence > last + 1 and ARGV[at + 4] ~= '1' then
      answer = 'GAP ' .. string.format('%.0f', last)
    else
      last, number, taken = sequence, number + 1, taken + 1
      local head = string.format('%013.0f', ttl > 0 and now + ttl or 0) .. ARGV[at + 1]
      redis.call('XADD', tag .. ':t:log', ms .. '-' .. string.format('%.0f', number), 'e', head .. ARGV[at + 5])
    end
    answers[#answers + 1] = answer
  end
  if taken == 0 then return end
  redis.call('HSET', meta, 'n', string.format('%.0f', number), 'ms', ms)
  redis.call('HSET', producers, producer, string.format('%.0f %.0f', last, now))
  rung['%20topics'] = ''
end

local at = 5
while at < #ARGV do
  local count = tonumber(ARGV[at + 1])
  if ARGV[at] == '%20topics' then publish(at + 2, count) else give(ARGV[at], at + 2, count) end
  at = at + 2 + count * 6
end
-- Who has work is named while that is short: it saves the owner a look.
for owner, names in pairs(rung) do
  redis.call('PUBLISH', tag .. ':bell:' .. owner, #names < 2000 and 'at' .. names or 'work')
end
if due_sooner then redis.call('PUBLISH', tag .. ':bell', 'due') end
return answers
