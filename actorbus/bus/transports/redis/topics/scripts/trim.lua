-- TRIM: drop what is beyond the bounds of the log of topics. Any node may, at any time.
--
-- KEYS[1]  the partition's tag
-- ARGV     entries, ms that an entry may be old, node, its name as producer, seconds for which a
--          node that says no more is remembered, bytes
-- Returns  how many went
--
-- Whole blocks of the stream go, so somewhat more may stay; nothing goes that is within all bounds.
-- The bytes are those of all events ever; marks, no more than 64 within the bound, remember how many
-- they were when the log had so many entries.
local tag, node, producer, keep = KEYS[1], ARGV[3], ARGV[4], tonumber(ARGV[5])
redis.call('DEL', tag .. ':none')  -- a first write that an exhausted memory allows
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local stream, producers, meta = tag .. ':t:log', tag .. ':t:p', tag .. ':t'
local gone = redis.call('XTRIM', stream, 'MAXLEN', '~', ARGV[1])
  + redis.call('XTRIM', stream, 'MINID', '~', string.format('%.0f', math.max(0, now - tonumber(ARGV[2]))))

local written = redis.call('HMGET', meta, 'n', 'bytes')
local count, bytes, most = tonumber(written[1] or 0), tonumber(written[2] or 0), tonumber(ARGV[6])
local marks = tag .. ':t:marks'
local function mark(at)
  local entries, size = string.match(redis.call('LINDEX', marks, at) or '0 0', '(%d+) (%d+)')
  return tonumber(entries), tonumber(size)
end
local _, marked = mark(-1)
if bytes - marked >= most / 64 then redis.call('RPUSH', marks, string.format('%.0f %.0f', count, bytes)) end
for _ = 1, redis.call('LLEN', marks) do
  local entries, size = mark(0)
  if size > bytes - most then break end
  gone = gone + redis.call('XTRIM', stream, 'MAXLEN', '~', string.format('%.0f', math.max(0, count - entries)))
  redis.call('LPOP', marks)
end

redis.call('EXPIRE', tag .. ':t:n:' .. node, keep)
redis.call('EXPIRE', tag .. ':t:lag:' .. node, keep)

local mine = redis.call('HGET', producers, producer)
if mine then
  redis.call('HSET', producers, producer, string.match(mine, '^%d+') .. ' ' .. string.format('%.0f', now))
end
local some = redis.call('HSCAN', producers, redis.call('HGET', meta, 'scan') or '0', 'COUNT', 64)
for at = 1, #some[2], 2 do
  local heard = tonumber(string.match(some[2][at + 1], ' (%d+)$'))
  if now - heard > keep * 1000 then redis.call('HDEL', producers, some[2][at]) end
end
redis.call('HSET', meta, 'scan', some[1])
return gone
