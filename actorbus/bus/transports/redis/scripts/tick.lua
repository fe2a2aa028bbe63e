-- TICK: put what is due into its inbox. Any node may, at any time; nothing happens twice.
--
-- KEYS[1]  the partition's tag
-- ARGV     how many at most, capacity, bytes
-- Returns  {moved, ms until the next is due (-1: none waits)}
--
-- Where the inbox is full the message tries again a second later. One whose agent is gone by then,
-- or that has expired, is a dead letter. A ttl counts from when the message was due.
local tag = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local moved, rung = 0, {}

local function bury(agent, level, reason, why, item)
  redis.call('XADD', tag .. ':dlq', 'MAXLEN', '~', 100000, '*', 'agent', agent, 'level', level, 'reason', reason,
    'attempts', '0', 'error', why, 'owner', '', 'item', item)
end

local function forget(id)
  redis.call('ZREM', tag .. ':due', id)
  redis.call('HDEL', tag .. ':dueb', id)
end

local due = redis.call('ZRANGEBYSCORE', tag .. ':due', '-inf', string.format('%.0f', now), 'LIMIT', 0, tonumber(ARGV[1]))
if due[1] then redis.call('DEL', tag .. ':none') end  -- a first write that an exhausted memory allows
for _, id in ipairs(due) do
  local kept = redis.call('HGET', tag .. ':dueb', id)
  local agent, level, ttl, blob = string.match(kept or '', '^(%S+) ([0-3]) (%d+) (.*)$')
  if not kept then
    redis.call('ZREM', tag .. ':due', id)
  elseif not agent then
    -- Not ours; it must not hold up what is.
    forget(id)
    bury('', '2', 'undecodable', 'it was delayed, and is no message', string.rep('0', 14) .. id .. kept)
  else
    local meta = tag .. ':a:' .. agent
    local got = redis.call('HMGET', meta, 'node', 'depth', 'bytes', 'cap', 'v', 'end', 'seen')
    local depth, bytes = tonumber(got[2] or 0), tonumber(got[3] or 0)
    local expiry = 0
    if tonumber(ttl) > 0 then expiry = tonumber(redis.call('ZSCORE', tag .. ':due', id)) + tonumber(ttl) end
    local item = string.format('%013.0f0', expiry) .. blob
    local room = depth < tonumber(got[4] or ARGV[2])
      and (depth == 0 or bytes + #item <= tonumber(ARGV[3]))
    if got[6] or not got[5] then
      forget(id)
      bury(agent, level, 'no-such-agent', 'nobody had the name when it was due', item)
    elseif expiry > 0 and expiry <= now then
      forget(id)
      bury(agent, level, 'expired', 'it expired before there was room', item)
    elseif room then
      redis.call('RPUSH', tag .. ':i:' .. agent .. ':' .. level, item)
      redis.call('HSET', meta, 'depth', depth + 1, 'bytes', bytes + #item)
      local owner = got[1] or ''
      if owner == '' then owner = '-' end
      if redis.call('SADD', tag .. ':rdy:' .. owner, agent) == 1 or got[7] then rung[owner] = true end
      if got[7] then redis.call('HDEL', meta, 'seen') end
      forget(id)
      moved = moved + 1
    else
      local again = now + 1000
      if expiry > 0 then
        again = math.min(again, expiry - 1)
        local left = string.format('%.0f', expiry - again)
        redis.call('HSET', tag .. ':dueb', id, agent .. ' ' .. level .. ' ' .. left .. ' ' .. blob)
      end
      redis.call('ZADD', tag .. ':due', again, id)
    end
  end
end
for owner in pairs(rung) do redis.call('PUBLISH', tag .. ':bell:' .. owner, 'work') end
local next_one = redis.call('ZRANGE', tag .. ':due', 0, 0, 'WITHSCORES')
local wait = -1
if next_one[2] then wait = math.max(0, tonumber(next_one[2]) - now) end
return {moved, wait}
