-- BEAT: a node lives.
--
-- ARGV     as those of JOIN, up to the token
-- Returns  {'OK', name of a node, its silence in microseconds, ...} | {'UNKNOWN'}
if not node_of(ARGV[4]) then return {'UNKNOWN'} end
write_though_full()
return beat(ARGV[4], ARGV[3], tonumber(ARGV[1]), tonumber(ARGV[2]))
