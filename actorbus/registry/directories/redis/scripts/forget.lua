-- FORGET: take out agents that are nobody's, whose node left or was forgotten.
--
-- ARGV     names of agents
write_though_full()
for _, name in ipairs(ARGV) do
  local holder = holder_of(name)
  if holder and not redis.call('HGET', nodes, holder) then redis.call('HDEL', agents, name) end
end
return {'OK'}
