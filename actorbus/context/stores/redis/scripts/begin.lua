-- Who may not is refused before anything else; then what is due expires.
--
-- ARGV[5]  whose grants to look at; empty where no grant is needed
-- ARGV[6]  the right: 'read' or 'write'
-- Returns  {'DENIED'} | {'MORE'}: call again, more was due than one call may do
if ARGV[5] ~= '' then
  local rights = redis.call('HGET', base .. ':grants', ARGV[5])
  if rights ~= ARGV[6] and rights ~= 'both' then return {'DENIED'} end
end
if settle() then return {'MORE'} end

