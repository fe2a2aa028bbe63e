-- FETCH: what owners have not seen yet. A read: the same call gives the same again.
--
-- KEYS[1]  the partition's tag
-- ARGV     how many bytes of an agent; how many in all; then for each agent: itself, its token,
--          how many messages (0: only of level 0, and few), and for levels 0 to 3: cursor, id of the
--          item before it
-- Returns  now in ms, and for each agent
--          {'OK', unseen, {item, ...} a level}, of each level from its cursor on
--          {'FENCED', token}        another owner's
--          {'RESET', h0, h1, h2, h3}  the log is not the one that was read: begin at its heads
--
-- What is too much is not seen: at least one comes if any waits, but those after that which has
-- filled what may come in all get none. Of an inbox that holds more bytes than may come, little
-- more is read than comes: all others wait while it is copied.
local tag, room = KEYS[1], tonumber(ARGV[2])
local FEW, FIRST = 4, 8
redis.call('DEL', tag .. ':none')  -- a first write that an exhausted memory allows

local function fetch(agent, token, most, at)
  local left, bytes = most > 0 and most or FEW, math.min(tonumber(ARGV[1]), room)
  local meta, inbox = tag .. ':a:' .. agent, tag .. ':i:' .. agent .. ':'
  local got = redis.call('HMGET', meta, 'tok', 'h0', 'h1', 'h2', 'h3', 'node', 'bytes', 'depth')
  if got[1] ~= token then return {'FENCED', got[1] or ''} end

  local cursors, tails, unseen = {}, {}, 0
  for level = 0, 3 do
    local list = inbox .. level
    local head = tonumber(got[level + 2] or 0)
    local cursor, before = tonumber(ARGV[at + 2 * level]), ARGV[at + 2 * level + 1]
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
    unseen = unseen + tail - cursor
  end
  if room <= 0 then return {'OK', unseen, {}, {}, {}, {}} end

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
  if most == 0 then quota = {[0] = math.min(left, tails[0] - cursors[0]), 0, 0, 0} end

  local found, seen, taken, read = {}, {}, 0, bytes
  local waits, step = tonumber(got[7] or 0), left
  if waits > bytes then
    step = math.max(1, math.min(FIRST, math.floor(bytes * tonumber(got[8] or 1) / waits)))
  end
  for level = 0, 3 do
    local items, wanted = {}, math.min(left, quota[level])
    if wanted > 0 then
      local from, count = cursors[level] - tonumber(got[level + 2] or 0), 0
      while count < wanted and left > 0 do
        local upto = math.min(wanted, count + step)
        for _, item in ipairs(redis.call('LRANGE', inbox .. level, from + count, from + upto - 1)) do
          local size = #item
          if taken > 0 and size > bytes then
            left = 0
            break
          end
          count = count + 1
          items[count] = item
          left, bytes, room, taken = left - 1, bytes - size, room - size, taken + 1
        end
        local more = math.floor(bytes * taken / (read - bytes))  -- were the rest like these
        if count < upto or more < 1 then left = 0 end
        step = math.min(2 * step, more)
      end
    end
    found[level + 1] = items
    seen[#seen + 1] = 'hw' .. level
    seen[#seen + 1] = string.format('%.0f', cursors[level] + #items)
  end
  unseen = unseen - taken
  if unseen == 0 then
    seen[#seen + 1] = 'seen'
    seen[#seen + 1] = '1'
  else
    redis.call('HDEL', meta, 'seen')
  end
  redis.call('HSET', meta, unpack(seen))
  -- Added again as well: the answer to a longer call may have been lost.
  redis.call(unseen == 0 and 'SREM' or 'SADD', tag .. ':rdy:' .. got[6], agent)
  return {'OK', unseen, found[1], found[2], found[3], found[4]}
end

local time = redis.call('TIME')
local answers = {string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))}
for at = 3, #ARGV, 11 do
  answers[#answers + 1] = fetch(ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), at + 3)
end
return answers
