-- DROP: an agent ends for good. What it had waiting becomes dead letters.
--
-- KEYS[1]  the partition's tag
-- ARGV     agent, token, reason ('': no letters are written), how many at most
-- Returns  {'OK', left} | {'FENCED', token}; call again until nothing is left
local tag, agent, token = KEYS[1], ARGV[1], ARGV[2]
local meta = tag .. ':a:' .. agent
local got = redis.call('HMGET', meta, 'tok', 'node', 'v')
if not got[3] then return {'OK', 0} end
if got[1] ~= token then return {'FENCED', got[1] or ''} end
redis.call('DEL', tag .. ':none')  -- a first write that an exhausted memory allows
local room, left = tonumber(ARGV[4]), 0
for level = 0, 3 do
  local list = tag .. ':i:' .. agent .. ':' .. level
  local some = room > 0 and redis.call('LRANGE', list, 0, room - 1) or {}
  for _, item in ipairs(ARGV[3] ~= '' and some or {}) do
    redis.call('XADD', tag .. ':dlq', 'MAXLEN', '~', 100000, '*', 'agent', agent, 'level', level,
      'reason', ARGV[3], 'attempts', '0', 'error', '', 'owner', token, 'item', item)
  end
  redis.call('LTRIM', list, #some, -1)
  room = room - #some
  left = left + redis.call('LLEN', list)
end
if left == 0 then
  -- How far each producer was stays for as long as one may send again: else a new agent of that
  -- name would be given what was sent to the old one.
  for at, field in ipairs(redis.call('HKEYS', meta)) do
    if string.sub(field, 1, 2) ~= 'p:' then redis.call('HDEL', meta, field) end
  end
  redis.call('PEXPIRE', meta, 600000)
  redis.call('HDEL', shelf_of(agent, got[2] or ''), agent)
  redis.call('SREM', tag .. ':rdy:' .. (got[2] or ''), agent)
end
return {'OK', left}
