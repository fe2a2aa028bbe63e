-- REPLAY: put a dead letter back into its agent's inbox, under a new id.
--
-- KEYS[1]  the partition's tag
-- ARGV     the letter's place in the dead letters, agent, level, capacity, bytes, id and blob
-- Returns  {'OK', id} | {'GONE'} | {'NOAGENT'} | {'FULL', depth}
--
-- It goes back once: whoever comes again within ten minutes is told under which id.
local tag, entry, agent, level, body = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[6]
local meta, mark = tag .. ':a:' .. agent, tag .. ':replayed:' .. entry
redis.call('DEL', tag .. ':none')  -- a first write that an exhausted memory allows
local id = redis.call('GET', mark)
if id then return {'OK', id} end
if #redis.call('XRANGE', tag .. ':dlq', entry, entry) == 0 then return {'GONE'} end

local got = redis.call('HMGET', meta, 'node', 'depth', 'bytes', 'cap', 'v', 'end')
if got[6] or not got[5] then return {'NOAGENT'} end
local depth, bytes, size = tonumber(got[2] or 0), tonumber(got[3] or 0), #body + 14
local full = depth >= tonumber(got[4] or ARGV[4])
if full or (depth > 0 and bytes + size > tonumber(ARGV[5])) then
  return {'FULL', string.format('%.0f', depth)}
end

redis.call('SET', mark, string.sub(body, 1, 16), 'PX', 600000)
redis.call('XDEL', tag .. ':dlq', entry)
redis.call('RPUSH', tag .. ':i:' .. agent .. ':' .. level, '00000000000000' .. body)
redis.call('HSET', meta, 'depth', string.format('%.0f', depth + 1), 'bytes', string.format('%.0f', bytes + size))
redis.call('HDEL', meta, 'seen')
local owner = got[1] or ''
if owner == '' then owner = '-' end
redis.call('SADD', tag .. ':rdy:' .. owner, agent)
redis.call('PUBLISH', tag .. ':bell:' .. owner, 'at ' .. agent)
return {'OK', string.sub(body, 1, 16)}
