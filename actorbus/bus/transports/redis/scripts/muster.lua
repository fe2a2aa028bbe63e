-- MUSTER: a node says that it starts, and hears who starts with it.
--
-- KEYS[1]  the partition's tag
-- ARGV     what they loaded, node, how far apart their starts may be in ms
-- Returns  {node, another, ...}, the caller among them
--
-- Time is the server's. Whoever calls again keeps its time; who started a minute ago is forgotten.
local key, node, apart = KEYS[1] .. ':muster:' .. ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('(%.0f', now - 60000))
redis.call('ZADD', key, 'NX', string.format('%.0f', now), node)
redis.call('PEXPIRE', key, 60000)
local own = tonumber(redis.call('ZSCORE', key, node))
return redis.call('ZRANGEBYSCORE', key, string.format('%.0f', own - apart), string.format('%.0f', own + apart))
