-- The nodes of a deployment and their agents, as they lie in Redis. Every script begins so.
--
-- KEYS[1]  a tag, which all keys begin with; the others are that and a name:
--   :nodes   hash    token -> 'stamp name': every node, and when it last beat
--   :names   hash    name of a node -> token
--   :agents  hash    name of an agent -> record
--   :kinds:<token>   hash    number -> what agents of one kind have in common, on that node;
--                            up -> the id of its joining: agents that joined before were forgotten
--   :facts   hash    token -> where the node runs and what it is, told once
--   :log     stream  each change: 'after', the id of the change before it, then what, whom, 'as'
--   :loads   stream  how busy agents are: 'after', the same, then 'as', token, and agents
--                    (both for NEWS seconds; who comes later reads the tables)
--   :meta    hash    layout; epoch, of the table as a whole; beat, the latest of any node;
--                    log and loads, the latest id in each
--
-- A node's token is new each time it starts. A record is '<id> <token> <number> <kind> <figures>':
-- the id is that of the change by which the agent joined, and its node gives it the number. An
-- agent whose token is no node's is nobody's; it may lie here, but nobody sees it.
-- Figures are '<status> <load> <messages handled>'. Stamps and ids are the server's microseconds.
local tag = KEYS[1]
local nodes, names, agents, meta = tag .. ':nodes', tag .. ':names', tag .. ':agents', tag .. ':meta'
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function text(number) return string.format('%.0f', number) end

local function parsed(found)
  local stamp, name = string.match(found, '^(%d+) (.*)$')
  return {stamp = tonumber(stamp), name = name}
end

local function node_of(token)
  local found = redis.call('HGET', nodes, token)
  return found and parsed(found)
end

-- Who has the name of an agent: a token, the number there, and the id of its joining.
local function holder_of(name)
  local record = redis.call('HGET', agents, name)
  if not record then return end
  local id, token, number = string.match(record, '^(%d+) (%S+) (%d+) ')
  return token, number, id
end

-- An id is later than all before it, also where the clock went back.
local function write(stream, most, ...)
  local before = redis.call('HGET', meta, stream) or '0'
  local id = text(math.max(now, before + 1))
  redis.call('XADD', tag .. ':' .. stream, 'MAXLEN', most, id .. '-0', 'after', before, ...)
  redis.call('HSET', meta, stream, id)
  return id
end

local function log(what, whom, as) return write('log', 4096, what, whom, 'as', as) end

-- A first write that a server without any memory left allows, and then all that follow.
local function write_though_full() redis.call('DEL', tag .. ':none') end

local function stamp(token, name) redis.call('HSET', nodes, token, text(now) .. ' ' .. name) end

local function remove(token, name)
  redis.call('HDEL', nodes, token)
  redis.call('HDEL', names, name)
  redis.call('HDEL', tag .. ':facts', token)
  redis.call('DEL', tag .. ':kinds:' .. token)
  log('gone', name, token)
end

-- Who waits for news has them at once: later they only take room.
local NEWS = 5 * 1000000
local function forget_old_news()
  for _, stream in ipairs({'log', 'loads'}) do
    redis.call('XTRIM', tag .. ':' .. stream, 'MINID', text(now - NEWS) .. '-0')
  end
end

-- A node lives; names and silences of all, in microseconds. Who was silent for too long is
-- forgotten.
--
-- Where nobody has beaten for more than half of `dead_after`, or a beat is to come that long from
-- now, the server was away or its clock was set: this beat counts for everybody.
local function beat(token, name, dead_after, forget_after)
  local before = tonumber(redis.call('HGET', meta, 'beat') or now)
  local excused = now - before > dead_after / 2 or before - now > dead_after
  if not excused then now = math.max(now, before) end
  forget_old_news()
  stamp(token, name)
  redis.call('HSET', meta, 'beat', text(now))
  local told = {'OK'}
  local all = redis.call('HGETALL', nodes)
  for at = 1, #all, 2 do
    local one = parsed(all[at + 1])
    if excused or one.stamp - now > dead_after then
      stamp(all[at], one.name)
      one.stamp = now
    end
    local silence = math.max(0, now - one.stamp)
    if silence > forget_after then
      remove(all[at], one.name)
    else
      told[#told + 1] = one.name
      told[#told + 1] = text(silence)
    end
  end
  return told
end
