-- OWN: become an agent's owner, give it up, or give it to another node.
--
-- KEYS[1]  the partition's tag
-- ARGV     what ('acquire', 'offer', 'release', 'handoff', 'end'), agent, node, then
--          acquire: ttl of nodes in ms, capacity, overflow, spec (each '': as it was; '-': the usual)
--          offer:   capacity, overflow, spec; where the agent is known nothing changes
--          release: token
--          handoff: token, the node that gets it
--          end:     token; senders hear that nobody has the name, what waits stays to be read
-- Returns  {'OK', token, depth, h0..h3, hw0..hw3, fresh, last try, owner before} | {'OWNED', node} | {'FENCED', token}
--
-- The spec says how another node makes the agent; those without one run nowhere else.
--
-- A token is newer than any before it, also after the server lost its tail: the greater of the
-- old one plus 1 and the server's microseconds. Owning it already gives the same token again, and
-- tells of the same owner before: the first answer may have been lost.
local tag, what, agent, node = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local meta = tag .. ':a:' .. agent
redis.call('DEL', tag .. ':none')  -- a first write that an exhausted memory allows
local got = redis.call('HMGET', meta, 'node', 'tok', 'depth')
local owner, old = got[1] or '', got[2] or '0'
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]

local function answer(token, fresh)
  local heads = redis.call('HMGET', meta, 'h0', 'h1', 'h2', 'h3', 'hw0', 'hw1', 'hw2', 'hw3', 'att')
  local all = {'OK', token, got[3] or '0'}
  for at = 1, 8 do all[#all + 1] = heads[at] or '0' end
  all[#all + 1] = fresh
  all[#all + 1] = heads[9] or ''
  all[#all + 1] = owner
  return all
end

local function move(to)
  local token = string.format('%.0f', math.max(tonumber(old) + 1, micros))
  redis.call('HDEL', shelf_of(agent, owner == '' and '-' or owner), agent)
  redis.call('SREM', tag .. ':rdy:' .. (owner == '' and '-' or owner), agent)
  redis.call('HSET', meta, 'node', to, 'tok', token, 'v', '1')
  redis.call('HDEL', meta, 'seen', 'was', 'rel')
  redis.call('HSET', shelf_of(agent, to == '' and '-' or to), agent, '')
  -- One that was given up ran somewhere: it is to run again, though nothing waits for it.
  if tonumber(got[3] or 0) > 0 or to == '' then
    local ready = to == '' and '-' or to
    redis.call('SADD', tag .. ':rdy:' .. ready, agent)
    redis.call('PUBLISH', tag .. ':bell:' .. ready, 'work')
  end
  return token
end

local function note(cap, overflow, spec)
  for name, value in pairs({cap = cap, ovf = overflow, spec = spec}) do
    if value == '-' then
      redis.call('HDEL', meta, name)
    elseif value ~= '' then
      redis.call('HSET', meta, name, value)
    end
  end
  redis.call('HDEL', meta, 'end')
  redis.call('PERSIST', meta)
end

if what == 'acquire' then
  if owner == node then
    note(ARGV[5], ARGV[6], ARGV[7])
    owner = redis.call('HGET', meta, 'was') or owner
    return answer(old, 0)
  end
  if owner ~= '' then
    local beaten = redis.call('ZSCORE', tag .. ':nodes', owner)
    local alive = beaten and micros / 1000 - tonumber(beaten) <= tonumber(ARGV[4])
    if alive then return {'OWNED', owner} end
  end
  note(ARGV[5], ARGV[6], ARGV[7])
  local token = move(node)
  if owner ~= '' then redis.call('HSET', meta, 'was', owner) end
  return answer(token, 1)
end
if what == 'offer' then
  if redis.call('HEXISTS', meta, 'v') == 1 then return answer(old, 0) end
  note(ARGV[4], ARGV[5], ARGV[6])
  redis.call('HSET', meta, 'v', '1')
  redis.call('HSET', shelf_of(agent, '-'), agent, '')
  return answer(old, 1)
end
-- It was given up with this token, and nobody has come since: the first answer was lost.
if what == 'release' and redis.call('HGET', meta, 'rel') == ARGV[4] then return answer(old, 0) end
if old ~= ARGV[4] then return {'FENCED', old} end
if what == 'end' then
  redis.call('HSET', meta, 'end', '1')
  return answer(old, 0)
end
-- Given up in good order: nobody died of what was read ahead.
local heads = redis.call('HMGET', meta, 'h0', 'h1', 'h2', 'h3')
redis.call('HSET', meta, 'hw0', heads[1] or 0, 'hw1', heads[2] or 0, 'hw2', heads[3] or 0, 'hw3', heads[4] or 0)
if what == 'release' then
  local token = move('')
  redis.call('HSET', meta, 'rel', ARGV[4])
  return answer(token, 0)
end
return answer(move(ARGV[5]), 0)
