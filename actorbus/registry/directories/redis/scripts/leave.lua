-- LEAVE: a node is no more, and its agents are nobody's.
--
-- ARGV     token
local node = node_of(ARGV[1])
if not node then return {'OK'} end
write_though_full()
remove(ARGV[1], node.name)
return {'OK'}
