-- ACK: owners are done with everything before some positions.
--
-- KEYS[1]  the partition's tag
-- ARGV     for each agent: itself, its token, how many levels, and 5 for each of those: level,
--          position after the last one done, its id, a position before that and how many bytes
--          lie between the two ('': count them); then how many dead letters, and 5 for each:
--          level, position, reason, attempts, error
-- Returns  for each {'OK', freed} | {'FENCED', token} | {'RESET', h0, h1, h2, h3}
--
-- What was acknowledged already is acknowledged; its dead letters are not written twice.
local tag = KEYS[1]
redis.call('DEL', tag .. ':none')  -- a first write that an exhausted memory allows

local function number(value) return string.format('%.0f', value) end

local function list_of(agent, level) return tag .. ':i:' .. agent .. ':' .. level end

-- The bytes of the first messages of a list.
local function size_of(list, count)
  local size = 0
  for _, item in ipairs(redis.call('LRANGE', list, 0, count - 1)) do size = size + #item end
  return size
end

local function acknowledge(agent, token, levels, levels_at, letters, letters_at)
  local meta = tag .. ':a:' .. agent
  local got = redis.call('HMGET', meta, 'tok', 'h0', 'h1', 'h2', 'h3', 'depth', 'bytes', 'full', 'node', 'att')
  if got[1] ~= token then return {'FENCED', got[1] or ''} end

  local heads, counts, sizes, freed = {}, {}, 0, 0
  for level = 0, 3 do heads[level], counts[level] = tonumber(got[level + 2] or 0), 0 end
  for at = levels_at, levels_at + levels * 5 - 5, 5 do
    local level, up_to = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    local list, head = list_of(agent, level), heads[level]
    local count = up_to - head
    if count > 0 then
      local item = redis.call('LINDEX', list, count - 1)
      if not item or string.sub(item, 15, 30) ~= ARGV[at + 2] then
        return {'RESET', got[2] or '0', got[3] or '0', got[4] or '0', got[5] or '0'}
      end
      local is_known = ARGV[at + 4] ~= '' and tonumber(ARGV[at + 3]) == head
      counts[level], freed = count, freed + count
      sizes = sizes + (is_known and tonumber(ARGV[at + 4]) or size_of(list, count))
    end
  end
  if freed == 0 then return {'OK', 0} end

  local written = {}
  for at = letters_at, letters_at + letters * 5 - 5, 5 do
    local level, position = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
    local offset = position - heads[level]
    if offset >= 0 and offset < counts[level] then
      written[#written + 1] = {at, redis.call('LINDEX', list_of(agent, level), offset)}
    end
  end

  -- What somebody else put there was never counted.
  local depth = math.max(0, tonumber(got[6] or 0) - freed)
  local changed = {'depth', number(depth), 'bytes', number(math.max(0, tonumber(got[7] or 0) - sizes))}
  for level = 0, 3 do
    if counts[level] > 0 then
      redis.call('LTRIM', list_of(agent, level), counts[level], -1)
      changed[#changed + 1] = 'h' .. level
      changed[#changed + 1] = number(heads[level] + counts[level])
    end
  end
  redis.call('HSET', meta, unpack(changed))
  if got[10] then redis.call('HDEL', meta, 'att') end
  -- What came along with a bell was never fetched.
  if depth == 0 then redis.call('SREM', tag .. ':rdy:' .. (got[9] or ''), agent) end
  if got[8] and depth * 2 <= tonumber(got[8]) then
    redis.call('HDEL', meta, 'full')
    redis.call('PUBLISH', tag .. ':bell', 'room ' .. agent)
  end
  for _, letter in ipairs(written) do
    local at, item = letter[1], letter[2]
    redis.call('XADD', tag .. ':dlq', 'MAXLEN', '~', 100000, '*', 'agent', agent, 'level', ARGV[at],
      'reason', ARGV[at + 2], 'attempts', ARGV[at + 3], 'error', ARGV[at + 4], 'owner', token, 'item', item)
  end
  return {'OK', freed}
end

local answers, at = {}, 1
while at < #ARGV do
  local levels, levels_at = tonumber(ARGV[at + 2]), at + 3
  local letters_at = levels_at + levels * 5 + 1
  local letters = tonumber(ARGV[letters_at - 1])
  answers[#answers + 1] = acknowledge(ARGV[at], ARGV[at + 1], levels, levels_at, letters, letters_at)
  at = letters_at + letters * 5
end
return answers
