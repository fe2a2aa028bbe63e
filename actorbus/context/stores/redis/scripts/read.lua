-- READ: the present version of a key.
--
-- ARGV[7]  key
-- Returns  {'OK', record} | {'OK'} where it is absent
local was = latest(ARGV[7])
return was.present and {'OK', record_of(ARGV[7], was.version)} or {'OK'}
