-- SWEEP: what is due expires, in whichever namespaces of this partition.
--
-- KEYS[1]  what the keys of every namespace here begin with
-- Returns  microseconds until more is due; -1: nothing will be
for _, one in ipairs(redis.call('ZRANGEBYSCORE', dues, '-inf', text(now), 'LIMIT', 0, 20)) do
  base, name = KEYS[1] .. one, one
  if settle() then break end
  schedule()
end
local first = redis.call('ZRANGE', dues, 0, 0, 'WITHSCORES')
return first[2] and text(math.max(0, tonumber(first[2]) - now)) or '-1'
