-- READ: what comes after a point of the log of topics. A read: the same call gives the same again.
--
-- KEYS[1]  the partition's tag
-- ARGV     the point ('ms-number'), the id of the entry there ('' if it is not known, '-' if the
--          point may lie between two entries), count, bytes
-- Returns  {'OK', now in ms, last point, {point, entry, point, entry, ...}}
--          {'RESET', last point, first point that is kept ('': none)}  the log is not the one
--          that was read
--
-- At least one entry comes, however large, if any is there. Little more is read than comes.
local tag, after, id = KEYS[1], ARGV[1], ARGV[2]
local left, bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local stream = tag .. ':t:log'
local got = redis.call('HMGET', tag .. ':t', 'n', 'ms')
local last = (got[2] or '0') .. '-' .. (got[1] or '0')

local function number(point) return tonumber(string.match(point, '%-(%d+)$')) end

local function is_there()
  if number(after) > number(last) then return false end
  if id == '-' then return true end
  local here = redis.call('XRANGE', stream, after, after)[1]
  if here then return id == '' or string.sub(here[2][2], 15, 30) == id end
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  return not first or number(after) < number(first[1])
end

if not is_there() then
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  return {'RESET', last, first and first[1] or ''}
end
local found, from, room, step = {}, '(' .. after, bytes, 2
while left > 0 do
  local wanted = math.min(left, step)
  local some = redis.call('XRANGE', stream, from, '+', 'COUNT', wanted)
  for _, one in ipairs(some) do
    local entry = one[2][2]
    if #found > 0 and #entry > bytes then
      left = 0
      break
    end
    found[#found + 1] = one[1]
    found[#found + 1] = entry
    left, bytes, from = left - 1, bytes - #entry, '(' .. one[1]
  end
  if #some < wanted then break end
  step = math.min(32, math.floor(bytes * #found / 2 / (room - bytes)))  -- were the rest like these
  if step < 1 then break end
end
local time = redis.call('TIME')
return {'OK', string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)), last, found}
