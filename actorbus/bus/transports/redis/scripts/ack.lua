-- ACK: the owner is done with everything before these positions.
--
-- KEYS[1]  the partition's tag
-- ARGV     agent, token, then for levels 0 to 3: position after the last one done, its id;
--          then 5 for each dead letter: level, position, reason, attempts, error
-- Returns  {'OK', freed} | {'FENCED', token} | {'RESET', h0, h1, h2, h3}
--
-- What was acknowledged already is acknowledged; its dead letters are not written twice.
local tag, agent, token = KEYS[1], ARGV[1], ARGV[2]
local meta = tag .. ':a:' .. agent
redis.call('DEL', tag .. ':none')  -- a first write that an exhausted memory allows
local got = redis.call('HMGET', meta, 'tok', 'h0', 'h1', 'h2', 'h3', 'depth', 'bytes', 'full', 'cap', 'node')
if got[1] ~= token then return {'FENCED', got[1] or ''} end

local counts, sizes = {}, 0
local freed = 0
for level = 0, 3 do
  local list = tag .. ':i:' .. agent .. ':' .. level
  local head = tonumber(got[level + 2] or 0)
  local up_to, id = tonumber(ARGV[3 + 2 * level]), ARGV[4 + 2 * level]
  local count = up_to - head
  counts[level] = count > 0 and count or 0
  if count > 0 then
    local item = redis.call('LINDEX', list, count - 1)
    if not item or string.sub(item, 15, 30) ~= id then
      return {'RESET', got[2] or '0', got[3] or '0', got[4] or '0', got[5] or '0'}
    end
  end
end

local letters = {}
for at = 11, #ARGV, 5 do
  local level, position = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local offset = position - tonumber(got[level + 2] or 0)
  if offset >= 0 and offset < counts[level] then
    local item = redis.call('LINDEX', tag .. ':i:' .. agent .. ':' .. level, offset)
    letters[#letters + 1] = {ARGV[at], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], item}
  end
end

local changed = {}
for level = 0, 3 do
  if counts[level] > 0 then
    local list = tag .. ':i:' .. agent .. ':' .. level
    for _, item in ipairs(redis.call('LRANGE', list, 0, counts[level] - 1)) do
      sizes = sizes + #item
    end
    redis.call('LTRIM', list, counts[level], -1)
    changed[#changed + 1] = 'h' .. level
    changed[#changed + 1] = string.format('%.0f', tonumber(got[level + 2] or 0) + counts[level])
    freed = freed + counts[level]
  end
end
if freed > 0 then
  local depth = tonumber(got[6] or 0) - freed
  changed[#changed + 1] = 'depth'
  changed[#changed + 1] = string.format('%.0f', depth)
  changed[#changed + 1] = 'bytes'
  changed[#changed + 1] = string.format('%.0f', tonumber(got[7] or 0) - sizes)
  redis.call('HSET', meta, unpack(changed))
  redis.call('HDEL', meta, 'att')
  -- What came along with a bell was never fetched.
  if depth == 0 then redis.call('SREM', tag .. ':rdy:' .. (got[10] or ''), agent) end
  if got[8] and got[9] and depth * 2 <= tonumber(got[9]) then
    redis.call('HDEL', meta, 'full')
    redis.call('PUBLISH', tag .. ':bell', 'room ' .. agent)
  end
end
for _, letter in ipairs(letters) do
  redis.call('XADD', tag .. ':dlq', 'MAXLEN', '~', 100000, '*', 'agent', agent, 'level', letter[1],
    'reason', letter[2], 'attempts', letter[3], 'error', letter[4], 'owner', token, 'item', letter[5])
end
return {'OK', freed}
