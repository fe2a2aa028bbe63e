-- CHANGES: what the log has after a revision, of keys with a prefix, as much as fits into one
-- answer, commits whole.
--
-- ARGV[7]  the revision, prefix, changes at most, commits to look at, bytes at most
-- Returns  {'OK', revision, how far this goes, key, record, ...}
--          {'LOST', revision}  the log does not go back so far, or there are too many changes
local after, prefix, room = tonumber(ARGV[7]), ARGV[8], tonumber(ARGV[9])
local look, bytes = tonumber(ARGV[10]), tonumber(ARGV[11])
local meta = redis.call('HMGET', base .. ':meta', 'revision', 'forgotten')
local revision = meta[1] or '0'
-- A reader ahead of the log has seen what the server lost.
if after < tonumber(meta[2] or 0) or after > tonumber(revision) then return {'LOST', revision} end

local answer, looked = {'OK', revision, ARGV[7]}, false
while not looked and bytes > 0 and look > 0 do
  local entries = redis.call('XRANGE', base .. ':log', '(' .. answer[3] .. '-0', '+', 'COUNT', math.min(look, 16))
  looked, look = #entries < 16, look - 16
  for _, entry in ipairs(entries) do
    local fields = entry[2]
    if bytes <= 0 then break end
    for at = 1, #fields, 2 do
      if string.sub(fields[at], 1, #prefix) == prefix then
        if room == 0 then return {'LOST', revision} end
        room = room - 1
        bytes = bytes - #fields[at] - #fields[at + 1]
        answer[#answer + 1] = fields[at]
        answer[#answer + 1] = fields[at + 1]
      end
    end
    answer[3] = string.match(entry[1], '^%d+')
  end
end
return answer
