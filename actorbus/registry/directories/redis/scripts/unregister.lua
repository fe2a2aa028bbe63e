-- UNREGISTER: agents leave their node.
--
-- ARGV     token, then of each agent name, number, and the number of its kind if it was the last
local token = ARGV[1]
write_though_full()
for at = 2, #ARGV, 3 do
  local holder, number = holder_of(ARGV[at])
  if holder == token and number == ARGV[at + 1] then
    redis.call('HDEL', agents, ARGV[at])
    log('left', ARGV[at], token .. ' ' .. number)
  end
  local kind = ARGV[at + 2]
  if kind ~= '' and redis.call('HDEL', tag .. ':kinds:' .. token, kind) == 1 then
    log('unkind', kind, token)
  end
end
return {'OK'}
