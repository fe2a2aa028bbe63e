-- JOIN: a node is there, as if it had just beaten.
--
-- ARGV     seconds until it is dead, and until it is forgotten, both * 1e6; name, token, layout,
--          what the epoch becomes where there is no table yet, facts
-- Returns  as BEAT | {'TAKEN'} | {'LAYOUT', layout}
local dead_after, forget_after, name, token = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local layout = redis.call('HGET', meta, 'layout')
if layout and layout ~= ARGV[5] then return {'LAYOUT', layout} end
write_though_full()
local holder = redis.call('HGET', names, name)
if holder and holder ~= token then
  local silence = now - node_of(holder).stamp
  if silence < dead_after then
    -- The clock went back: without this the name would be taken until it is there again.
    if silence < -dead_after then stamp(holder, name) end
    return {'TAKEN'}
  end
  remove(holder, name)
end
if not layout then redis.call('HSET', meta, 'layout', ARGV[5], 'epoch', ARGV[6]) end
redis.call('HSET', tag .. ':facts', token, ARGV[7])
if holder ~= token then
  redis.call('HSET', names, name, token)
  redis.call('HSET', tag .. ':kinds:' .. token, 'up', log('up', name, token))
end
return beat(token, name, dead_after, forget_after)
