-- LOADS: how busy agents are now, where that has changed.
--
-- ARGV     token, then of each agent name, number, figures; at most 300
local token = ARGV[1]
local changed = {}
for at = 2, #ARGV, 3 do
  local record = redis.call('HGET', agents, ARGV[at])
  local head, holder, number = string.match(record or '', '^(%d+ (%S+) (%d+) %d+ )')
  if holder == token and number == ARGV[at + 1] then
    redis.call('HSET', agents, ARGV[at], head .. ARGV[at + 2])
    changed[#changed + 1] = ARGV[at]
    changed[#changed + 1] = number .. ' ' .. ARGV[at + 2]
  end
end
if #changed > 0 then write('loads', 1024, 'as', token, unpack(changed)) end
return {'OK'}
