-- BEAT: a node lives. Time is the server's; the judgement is the same for everybody.
--
-- KEYS[1]  the partition's tag
-- ARGV     node, ttl in ms, 1 to leave
-- Returns  {now in ms, node that is dead and still owns agents, another, ...}
--
-- Where nobody has beaten for more than half a ttl, the server was away and not the nodes: the
-- first beat then counts for everybody. A stamp from further ahead than a ttl, of a master whose
-- clock was, counts from now.
local tag, node, ttl = KEYS[1], ARGV[1], tonumber(ARGV[2])
redis.call('DEL', tag .. ':none')  -- a first write that an exhausted memory allows
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[3] == '1' then
  -- One that still owns agents stays, and dies in time: others look only at those that are dead.
  if owns_any(node) then
    redis.call('ZADD', tag .. ':nodes', now - ttl - 1, node)
  else
    redis.call('ZREM', tag .. ':nodes', node)
  end
  return {string.format('%.0f', now)}
end
local before = tonumber(redis.call('GET', tag .. ':beat') or 0)
local away = now - before > ttl / 2 or before - now > ttl
local stamp = string.format('%.0f', now)
for at, one in ipairs(redis.call('ZRANGE', tag .. ':nodes', 0, -1, 'WITHSCORES')) do
  -- Members and scores take turns.
  if at % 2 == 1 and away then redis.call('ZADD', tag .. ':nodes', stamp, one) end
end
redis.call('ZADD', tag .. ':nodes', stamp, node)
redis.call('SET', tag .. ':beat', stamp)
local dead = {stamp}
for _, one in ipairs(redis.call('ZRANGEBYSCORE', tag .. ':nodes', '-inf', string.format('(%.0f', now - ttl))) do
  if owns_any(one) then
    dead[#dead + 1] = one
  else
    redis.call('ZREM', tag .. ':nodes', one)
  end
end
for _, one in ipairs(redis.call('ZRANGEBYSCORE', tag .. ':nodes', string.format('(%.0f', now + ttl), '+inf')) do
  redis.call('ZADD', tag .. ':nodes', stamp, one)
end
return dead
