-- SILENCES: how long each node has been silent, for whoever is none.
--
-- Returns  {'OK', name of a node, its silence in microseconds, ...}
local told = {'OK'}
local all = redis.call('HGETALL', nodes)
for at = 2, #all, 2 do
  local one = parsed(all[at])
  told[#told + 1] = one.name
  told[#told + 1] = text(math.max(0, now - one.stamp))
end
return told
