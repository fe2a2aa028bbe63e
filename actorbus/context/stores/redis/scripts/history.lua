-- HISTORY: versions of a key, newest first, as many as fit into one answer.
--
-- ARGV[7]  key, the version to go on below (0: from the newest), records at most, bytes at most
-- Returns  {'OK', the oldest version kept, record, ...}
local key, below = ARGV[7], tonumber(ARGV[8])
local count, bytes = tonumber(ARGV[9]), tonumber(ARGV[10])
local was = latest(key)
local version, answer = was.version, {'OK', text(was.oldest)}
if below > 0 then version = math.min(version, below - 1) end
while version >= was.oldest and count > 0 and bytes > 0 do
  local record = record_of(key, version)
  answer[#answer + 1] = record
  version, count, bytes = version - 1, count - 1, bytes - #record
end
return answer
