-- SCAN: the present versions of keys with a prefix, by name, as many as fit into one answer.
--
-- ARGV[7]  prefix, the key to go on after (or empty), keys at most, bytes at most
-- Returns  {'OK', revision, 1 if there may be more, key, record, ...}
local prefix, after, count, bytes = ARGV[7], ARGV[8], tonumber(ARGV[9]), tonumber(ARGV[10])
local from = after ~= '' and '(' .. after or '[' .. prefix
-- No UTF-8 has the byte 255, so all that begins with the prefix is before it.
local keys = redis.call('ZRANGEBYLEX', base .. ':names', from, '(' .. prefix .. '\255', 'LIMIT', 0, count)
local answer = {'OK', redis.call('HGET', base .. ':meta', 'revision') or '0', #keys == count and 1 or 0}
for _, key in ipairs(keys) do
  if bytes <= 0 then
    answer[3] = 1
    break
  end
  local record = record_of(key, latest(key).version)
  answer[#answer + 1] = key
  answer[#answer + 1] = record
  bytes = bytes - #key - #record
end
return answer
