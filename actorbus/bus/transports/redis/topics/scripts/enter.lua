-- ENTER: where the log of topics ends, for an agent that would begin there. A read.
--
-- KEYS[1]  the partition's tag
-- ARGV     node, agent
-- Returns  {last point, 1 if nothing is kept of the agent and the node's watermark is that point,
--          so that KEEP's join and resume would change nothing; else 0}
local tag, node, agent = KEYS[1], ARGV[1], ARGV[2]
local ends = redis.call('HMGET', tag .. ':t', 'n', 'ms')
local last = (ends[2] or '0') .. '-' .. (ends[1] or '0')
local kept = redis.call('HEXISTS', tag .. ':t:lag:' .. node, agent)
  + redis.call('HEXISTS', tag .. ':t:parked', agent)
  + redis.call('EXISTS', tag .. ':t:subs:' .. agent)
local mark = redis.call('HGET', tag .. ':t:n:' .. node, 'w')
return {last, kept == 0 and mark == last and 1 or 0}
