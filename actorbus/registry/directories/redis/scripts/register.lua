-- REGISTER: agents join a node.
--
-- ARGV     dead_after * 1e6, or 0 to take names from whoever has them; token, how many kinds; of each its number and what it is; then of
--          each agent name, number, number of its kind, figures
-- Returns  {'OK', for each agent '' or the node where the name is taken, ...} | {'UNKNOWN'}
local dead_after, token = tonumber(ARGV[1]), ARGV[2]
if not node_of(token) then return {'UNKNOWN'} end
local latest = tonumber(redis.call('HGET', meta, 'beat'))
local up = tonumber(redis.call('HGET', tag .. ':kinds:' .. token, 'up'))
local first = 4 + 2 * ARGV[3]
local told, joining = {'OK'}, {}
for at = first, #ARGV, 4 do
  local holder, number, id = holder_of(ARGV[at])
  local owner = holder and node_of(holder)
  local same = holder == token and number == ARGV[at + 1]
  local here = same and tonumber(id) > up
  local taken = owner and not same and latest - owner.stamp < dead_after
  told[#told + 1] = taken and owner.name or ''
  if not taken and not here then joining[#joining + 1] = at end
end
if #joining > 0 then
  write_though_full()
  for at = 4, first - 1, 2 do
    if redis.call('HSETNX', tag .. ':kinds:' .. token, ARGV[at], ARGV[at + 1]) == 1 then
      log('kind', ARGV[at + 1], token .. ' ' .. ARGV[at])
    end
  end
end
for _, at in ipairs(joining) do
  local rest = token .. ' ' .. ARGV[at + 1] .. ' ' .. ARGV[at + 2] .. ' ' .. ARGV[at + 3]
  local id = log('joined', ARGV[at], rest)
  redis.call('HSET', agents, ARGV[at], id .. ' ' .. rest)
end
return told
