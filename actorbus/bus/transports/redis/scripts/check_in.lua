-- CHECK_IN: the first node of a deployment writes its layout down, all are told what is there.
--
-- KEYS[1]  the deployment's own hash
-- ARGV     the layout's version, partitions for a new deployment
-- Returns  {the layout's version, partitions}, as written there; empty what is missing
local found = redis.call('HMGET', KEYS[1], 'layout', 'partitions')
if not found[1] and not found[2] then
  redis.call('HSET', KEYS[1], 'layout', ARGV[1], 'partitions', ARGV[2])
  return {ARGV[1], ARGV[2]}
end
return {found[1] or '', found[2] or ''}
