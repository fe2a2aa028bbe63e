-- PEEK: what lies on one level of an inbox, for its owner. A read, which leaves no trace.
--
-- KEYS[1]  the partition's tag
-- ARGV     agent, token, level, position, how many at most
-- Returns  {'OK', position of the first, item, ...} | {'FENCED', token}
--
-- Fewer come once they are a megabyte: all others wait while they are copied.
local FEW, ENOUGH = 8, 1048576
local meta = KEYS[1] .. ':a:' .. ARGV[1]
local got = redis.call('HMGET', meta, 'tok', 'h' .. ARGV[3])
if got[1] ~= ARGV[2] then return {'FENCED', got[1] or ''} end
local head = tonumber(got[2] or 0)
local first = math.max(tonumber(ARGV[4]), head)
local list, from, most = KEYS[1] .. ':i:' .. ARGV[1] .. ':' .. ARGV[3], first - head, tonumber(ARGV[5])
local items, size = {}, 0
while #items < most and size < ENOUGH do
  local at = from + #items
  local some = redis.call('LRANGE', list, at, at + math.min(FEW, most - #items) - 1)
  if #some == 0 then break end
  for _, item in ipairs(some) do
    items[#items + 1], size = item, size + #item
  end
end
return {'OK', string.format('%.0f', first), unpack(items)}
