-- COMMIT: all of it or nothing, and once, however often it is sent.
--
-- KEYS[3]  what this writer did last
-- KEYS[4]  the agent that owns the namespace, where its token is checked
-- ARGV[7]  token (or empty), the writer's number for this commit, the author as in a record,
--          how many expectations; two for each of those: key, version; then five for each
--          operation: verb ('set', 'keep' its ttl, 'increment', 'delete'), key, ttl in
--          microseconds (or empty), kind, value
-- Returns  {'OK', 'revision stamp word...'}: for each operation '-' where nothing changed, its
--            version, or 'version:kind:sum'
--          {'CONFLICT', which expectation, the version that is}
--          {'COMPUTE', key, record, ...}  sums that are not exact here, or of no number
--          {'FENCED'}  another node owns the agent
--          {'LATE'}  the writer has gone on since
local token, number, author = ARGV[7], tonumber(ARGV[8]), ARGV[9]
local done = redis.call('GET', KEYS[3])
if done then
  local last, answer = string.match(done, '^(%d+) (.*)$')
  if tonumber(last) == number then return {'OK', answer} end
  if tonumber(last) > number then return {'LATE'} end
end
if token ~= '' and redis.call('HGET', KEYS[4], 'tok') ~= token then return {'FENCED'} end

local place = 11
for which = 1, tonumber(ARGV[10]) do
  local was = latest(ARGV[place])
  local version = was.present and text(was.version) or '0'
  if version ~= ARGV[place + 1] then return {'CONFLICT', which, version} end
  place = place + 2
end

-- Kind and text of a sum; nil where only the client can tell.
local EXACT = 9007199254740992
local function sum(record, kind, by)
  if not record then return kind ~= 'm' and kind or nil, by end
  local had, size, at = string.match(record, '^%d+ %d+ (.) (%S+)\n()')
  if had == 'm' or kind == 'm' then return nil end
  local total = tonumber(string.sub(record, at + (tonumber(size) or 0))) + tonumber(by)
  if had == 'f' or kind == 'f' then
    if total ~= total or total == math.huge or total == -math.huge then return nil end
    return 'f', string.format('%.17g', total)
  end
  if math.abs(total) >= EXACT then return nil end
  return 'i', text(total)
end

local stamp = text(math.max(now, tonumber(redis.call('HGET', base .. ':meta', 'at') or 0)))
local plan, words, compute, growing = {}, {}, {'COMPUTE'}, false
for at = place, #ARGV, 5 do
  local verb, key, kind, value = ARGV[at], ARGV[at + 1], ARGV[at + 3], ARGV[at + 4]
  local was = latest(key)
  local version = text(was.version + 1)
  local word = version
  if verb == 'increment' then
    local record = was.present and record_of(key, was.version)
    kind, value = sum(record, kind, value)
    if not kind then
      compute[#compute + 1] = key
      compute[#compute + 1] = record or ''
      kind, value = '-', ''
    end
    word = version .. ':' .. kind .. ':' .. value
  end
  if verb == 'delete' and not was.present then
    word = '-'
  else
    local record = version .. ' ' .. stamp .. ' ' .. kind .. ' ' .. author .. value
    plan[#plan + 1] = {verb = verb, key = key, was = was, ttl = ARGV[at + 2], record = record}
    growing = growing or verb ~= 'delete'
  end
  words[#words + 1] = word
end
if #compute > 1 then return compute end

-- Up to here nothing was written, so what was refused leaves no trace. A server whose memory is
-- exhausted refuses the first write, but for a DEL: deletions are always taken.
if not growing then redis.call('DEL', base .. ':none') end
local fields, moved = {}, false
for _, one in ipairs(plan) do
  keep(one.key, one.was, one.record, one.verb ~= 'delete')
  fields[#fields + 1] = one.key
  fields[#fields + 1] = one.record
  if one.ttl ~= '' then
    redis.call('ZADD', base .. ':due', text(now + tonumber(one.ttl)), one.key)
    moved = true
  elseif one.verb == 'delete' or one.verb == 'set' then
    moved = redis.call('ZREM', base .. ':due', one.key) == 1 or moved
  end
end
if moved then schedule() end
local revision = redis.call('HGET', base .. ':meta', 'revision') or '0'
if #fields > 0 then revision = write(fields, stamp) end
local answer = revision .. ' ' .. stamp .. ' ' .. table.concat(words, ' ')
redis.call('SET', KEYS[3], ARGV[8] .. ' ' .. answer, 'PX', 600000)
return {'OK', answer}
