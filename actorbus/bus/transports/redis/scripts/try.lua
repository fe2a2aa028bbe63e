-- TRY: count that a message is begun that a former owner may have died of.
--
-- KEYS[1]  the partition's tag
-- ARGV     agent, token, level, position, a word for this try
-- Returns  {'OK', how many tries} | {'FENCED', token}
--
-- The same word again is the same try.
local tag, agent, token = KEYS[1], ARGV[1], ARGV[2]
redis.call('DEL', tag .. ':none')  -- a first write that an exhausted memory allows
local meta = tag .. ':a:' .. agent
local got = redis.call('HMGET', meta, 'tok', 'att')
if got[1] ~= token then return {'FENCED', got[1] or ''} end
local level, position, count, word = string.match(got[2] or '', '^(%d) (%d+) (%d+) (%S+)$')
local tries = 1
if level == ARGV[3] and position == ARGV[4] then
  tries = tonumber(count)
  if word ~= ARGV[5] then tries = tries + 1 end
end
redis.call('HSET', meta, 'att', ARGV[3] .. ' ' .. ARGV[4] .. ' ' .. tries .. ' ' .. ARGV[5])
return {'OK', tries}
