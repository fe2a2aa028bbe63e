-- PEEK: what lies on one level of an inbox, for its owner. A read, which leaves no trace.
--
-- KEYS[1]  the partition's tag
-- ARGV     agent, token, level, position, how many at most
-- Returns  {'OK', position of the first, item, ...} | {'FENCED', token}
local meta = KEYS[1] .. ':a:' .. ARGV[1]
local got = redis.call('HMGET', meta, 'tok', 'h' .. ARGV[3])
if got[1] ~= ARGV[2] then return {'FENCED', got[1] or ''} end
local head = tonumber(got[2] or 0)
local first = math.max(tonumber(ARGV[4]), head)
local from = first - head
local items = redis.call('LRANGE', KEYS[1] .. ':i:' .. ARGV[1] .. ':' .. ARGV[3], from, from + ARGV[5] - 1)
return {'OK', string.format('%.0f', first), unpack(items)}
