-- SEND: put messages of one producer into the inboxes of agents of this partition.
--
-- KEYS[1]  the partition's tag; every other key is it and a name (2.2 of the design)
-- ARGV     producer, capacity, bytes, 1 if unknown agents are made, then 8 for each message:
--          agent, sequence, level, ttl in ms (0: none), delay in ms (0: none), base, id, blob
-- Returns  one word for each: OK, DUP, GAP <last>, FULL <depth>, NOAGENT
--
-- Sequences count per producer and agent. One that was taken is DUP, so a call may be
-- repeated; one that is too high is GAP, so what failed before it cannot be overtaken. With
-- base = 1 the sequence is the new beginning, whatever came before.
local tag, producer = KEYS[1], ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answers, rung, due_sooner = {}, {}, false

local function accept(meta, agent, got, level, ttl, id, blob)
  local expiry = ttl > 0 and now + ttl or 0
  local item = id .. string.format('%013.0f', expiry) .. '0' .. blob
  redis.call('RPUSH', tag .. ':i:' .. agent .. ':' .. level, item)
  local owner = got[3] or ''
  if owner == '' then owner = '-' end
  if redis.call('SADD', tag .. ':rdy:' .. owner, agent) == 1 then rung[owner] = true end
  return #item
end

for at = 5, #ARGV, 8 do
  local agent, level = ARGV[at], ARGV[at + 2]
  local sequence, ttl, delay = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local base, id, blob = ARGV[at + 5] == '1', ARGV[at + 6], ARGV[at + 7]
  local meta, field = tag .. ':a:' .. agent, 'p:' .. producer
  local got = redis.call('HMGET', meta, field, 'depth', 'node', 'bytes', 'cap', 'capb', 'v')
  local last = tonumber(string.match(got[1] or '', '^%d+') or 0)
  local depth, bytes = tonumber(got[2] or 0), tonumber(got[4] or 0)
  local cap, capb = tonumber(got[5] or ARGV[2]), tonumber(got[6] or ARGV[3])
  local size = #id + 14 + #blob
  if level == '0' then cap, capb = math.ceil(cap * 1.1), math.ceil(capb * 1.1) end
  local answer
  if not got[7] and ARGV[4] ~= '1' then
    answer = 'NOAGENT'
  elseif sequence <= last and not base then
    answer = 'DUP'
  elseif sequence > last + 1 and not base then
    answer = 'GAP ' .. string.format('%.0f', last)
  elseif delay == 0 and (depth >= cap or (bytes + size > capb and depth > 0)) then
    answer = 'FULL ' .. string.format('%.0f', depth)
    redis.call('HSET', meta, 'full', '1')
  else
    answer = 'OK'
    local taken = string.format('%.0f %.0f', sequence, now)
    if not got[7] then redis.call('HSET', meta, 'v', '1') end
    if delay > 0 then
      local when = now + delay
      local first = redis.call('ZRANGE', tag .. ':due', 0, 0, 'WITHSCORES')
      if not first[2] or when < tonumber(first[2]) then due_sooner = true end
      redis.call('ZADD', tag .. ':due', when, id)
      redis.call('HSET', tag .. ':dueb', id, agent .. ' ' .. level .. ' ' .. string.format('%.0f', ttl) .. ' ' .. blob)
      redis.call('HSET', meta, field, taken)
    else
      size = accept(meta, agent, got, level, ttl, id, blob)
      redis.call('HSET', meta, field, taken, 'depth', depth + 1, 'bytes', bytes + size)
    end
  end
  answers[#answers + 1] = answer
end
for owner in pairs(rung) do redis.call('PUBLISH', tag .. ':bell:' .. owner, 'work') end
if due_sooner then redis.call('PUBLISH', tag .. ':bell', 'due') end
return answers
