-- A namespace of shared state as it lies in Redis, and how it changes. Every script begins so.
--
-- KEYS[1]  what the keys of the namespace begin with; the others are that and a name:
--   :keys    hash    key -> 'oldest version kept, version, 1 where present', for every key ever
--   :names   zset    the keys that are present, by name
--   :past    hash    'version:key' -> record, for the versions that are kept
--   :due     zset    key -> when it expires, in microseconds
--   :log     stream  a commit an entry: its id is the revision of its last change, its fields
--                    are keys and records
--   :meta    hash    revision, forgotten (the last revision that left the log), bytes (of the
--                    log), at (the latest stamp)
--   :grants  hash    who -> rights
--   :bell    channel that tells each new revision
-- KEYS[2]  zset    namespace -> when its first key expires, for all of the partition
-- ARGV     namespace, versions kept of a key, commits kept in the log, and bytes
--
-- A record is '<version> <stamp> <kind> <bytes of the author, or ->', a new line, author, value.
-- Kinds: 'i' and 'f' are numbers as text, 'm' is msgpack, '-' says that the key was deleted.
local base, dues, name = KEYS[1], KEYS[2], ARGV[1]
local kept, log_size, log_bytes = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function text(number) return string.format('%.0f', number) end

local function latest(key)
  local found = redis.call('HGET', base .. ':keys', key)
  if not found then return {oldest = 1, version = 0, present = false} end
  local oldest, version, present = string.match(found, '^(%d+) (%d+) (%d)$')
  return {oldest = tonumber(oldest), version = tonumber(version), present = present == '1'}
end

local function record_of(key, version)
  return redis.call('HGET', base .. ':past', text(version) .. ':' .. key)
end

local function note(key, oldest, version, present)
  local state = text(oldest) .. ' ' .. text(version) .. ' ' .. (present and '1' or '0')
  redis.call('HSET', base .. ':keys', key, state)
end

local function drop(key, from, to)
  for version = from, to do redis.call('HDEL', base .. ':past', text(version) .. ':' .. key) end
end

-- The next version of a key, in place of what it was.
local function keep(key, was, record, present)
  local version = was.version + 1
  redis.call('HSET', base .. ':past', text(version) .. ':' .. key, record)
  -- Where fewer are kept than before, that is made up for a thousand at a time.
  local oldest = math.min(math.max(was.oldest, version - kept + 1), was.oldest + 1000)
  drop(key, was.oldest, oldest - 1)
  note(key, oldest, version, present)
  if present and not was.present then redis.call('ZADD', base .. ':names', 0, key) end
  if was.present and not present then redis.call('ZREM', base .. ':names', key) end
end

-- The log forgets a deletion: of a key that is gone only the number stays.
local function retire(key, version)
  local was = latest(key)
  if was.present or was.version ~= version then return end
  drop(key, was.oldest, was.version)
  note(key, was.version + 1, was.version, false)
end

-- The oldest entry leaves the log; its revision and its size.
local function forget()
  local entry = redis.call('XRANGE', base .. ':log', '-', '+', 'COUNT', 1)[1]
  local fields, size = entry[2], 0
  for at = 1, #fields, 2 do
    size = size + #fields[at] + #fields[at + 1]
    local version, kind = string.match(fields[at + 1], '^(%d+) %d+ (.)')
    if kind == '-' then retire(fields[at], tonumber(version)) end
  end
  redis.call('XDEL', base .. ':log', entry[1])
  return string.match(entry[1], '^%d+'), size
end

-- Log a commit, keys and records in turn, and ring; the revision.
local function write(fields, stamp)
  local meta = redis.call('HMGET', base .. ':meta', 'revision', 'forgotten', 'bytes')
  local revision = text(tonumber(meta[1] or 0) + #fields / 2)
  local forgotten, bytes = meta[2] or '0', tonumber(meta[3] or 0)
  for at = 1, #fields do bytes = bytes + #fields[at] end
  redis.call('XADD', base .. ':log', revision .. '-0', unpack(fields))
  local entries, size = redis.call('XLEN', base .. ':log')
  for _ = 1, 100 do
    if entries <= log_size and (bytes <= log_bytes or entries == 1) then break end
    forgotten, size = forget()
    entries, bytes = entries - 1, bytes - size
  end
  redis.call('HSET', base .. ':meta', 'revision', revision, 'forgotten', forgotten,
    'bytes', text(bytes), 'at', stamp)
  redis.call('PUBLISH', base .. ':bell', revision)
  return revision
end

local function schedule()
  local first = redis.call('ZRANGE', base .. ':due', 0, 0, 'WITHSCORES')
  if first[1] then redis.call('ZADD', dues, first[2], name) else redis.call('ZREM', dues, name) end
end

-- Delete what has outlived its ttl, each key by a commit of its own, stamped with the time that
-- it was due. Whether more is due than one call may do.
local function settle()
  local due = redis.call('ZRANGEBYSCORE', base .. ':due', '-inf', text(now), 'WITHSCORES',
    'LIMIT', 0, 200)
  for at = 1, #due, 2 do
    local key, stamp = due[at], text(tonumber(due[at + 1]))
    redis.call('ZREM', base .. ':due', key)  -- a first write that an exhausted memory allows
    local was = latest(key)
    if was.present then
      local record = text(was.version + 1) .. ' ' .. stamp .. ' - -\n'
      keep(key, was, record, false)
      write({key, record}, stamp)
    end
  end
  if #due > 0 then schedule() end
  return #due == 400
end

