-- FETCH: what an agent's owner has not seen yet. A read: the same call gives the same again.
--
-- KEYS[1]  the partition's tag
-- ARGV     agent, token, count, bytes, then for levels 0 to 3: cursor, id of the item before it
-- Returns  {'OK', now in ms, unseen, {position, item, position, item, ...} a level}
--          {'FENCED', token}        another owner's
--          {'RESET', h0, h1, h2, h3}  the log is not the one that was read: begin at its heads
local tag, agent, token = KEYS[1], ARGV[1], ARGV[2]
local left, bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local meta = tag .. ':a:' .. agent
redis.call('DEL', tag .. ':none')  -- a first write that an exhausted memory allows
local got = redis.call('HMGET', meta, 'tok', 'h0', 'h1', 'h2', 'h3', 'node')
if got[1] ~= token then return {'FENCED', got[1] or ''} end

local cursors, tails = {}, {}
for level = 0, 3 do
  local list = tag .. ':i:' .. agent .. ':' .. level
  local head = tonumber(got[level + 2] or 0)
  local cursor, before = tonumber(ARGV[5 + 2 * level]), ARGV[6 + 2 * level]
  local tail = head + redis.call('LLEN', list)
  local same = cursor >= head and cursor <= tail
  if same and cursor > head and before ~= '' then
    local item = redis.call('LINDEX', list, cursor - head - 1)
    same = item and string.sub(item, 15, 30) == before
  end
  if not same then
    return {'RESET', got[2] or '0', got[3] or '0', got[4] or '0', got[5] or '0'}
  end
  cursors[level], tails[level] = cursor, tail
end

-- Each level gets its part of the count first, 8 to 4 to 2 to 1, so that none starves; what one
-- leaves, the highest may have.
local quota, spare = {}, left
for level = 0, 3 do
  quota[level] = math.min(tails[level] - cursors[level], math.max(1, math.floor(left * 2 ^ (3 - level) / 15)))
  spare = spare - quota[level]
end
for level = 0, 3 do
  local more = math.max(0, math.min(spare, tails[level] - cursors[level] - quota[level]))
  quota[level], spare = quota[level] + more, spare - more
end

local found, unseen, seen, taken = {}, 0, {}, 0
for level = 0, 3 do
  local head = tonumber(got[level + 2] or 0)
  local items, position = {}, cursors[level]
  local most = math.min(left, quota[level])
  if most > 0 then
    local from = position - head
    local some = redis.call('LRANGE', tag .. ':i:' .. agent .. ':' .. level, from, from + most - 1)
    for _, item in ipairs(some) do
      if taken > 0 and #item > bytes then
        left = 0
        break
      end
      items[#items + 1] = string.format('%.0f', position)
      items[#items + 1] = item
      position, left, bytes, taken = position + 1, left - 1, bytes - #item, taken + 1
    end
  end
  found[level + 1] = items
  unseen = unseen + tails[level] - position
  seen[#seen + 1] = 'hw' .. level
  seen[#seen + 1] = string.format('%.0f', position)
end
if unseen == 0 then
  seen[#seen + 1] = 'seen'
  seen[#seen + 1] = '1'
else
  redis.call('HDEL', meta, 'seen')
end
redis.call('HSET', meta, unpack(seen))
-- Added again as well: the answer to a longer call may have been lost.
redis.call(unseen == 0 and 'SREM' or 'SADD', tag .. ':rdy:' .. got[6], agent)
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
return {'OK', now, unseen, found[1], found[2], found[3], found[4]}
