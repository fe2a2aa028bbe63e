-- NEWS: what changed.
--
-- ARGV     the latest ids that are known, in the log and in the loads; how many entries at most
-- Returns  {epoch, latest id in the log, entries after the known one, the same for the loads}
local latest = redis.call('HMGET', meta, 'epoch', 'log', 'loads')
local function after(id, stream)
  return redis.call('XRANGE', tag .. ':' .. stream, '(' .. id .. '-0', '+', 'COUNT', ARGV[3])
end
return {
  latest[1] or '',
  latest[2] or '0', after(ARGV[1], 'log'),
  latest[3] or '0', after(ARGV[2], 'loads'),
}
