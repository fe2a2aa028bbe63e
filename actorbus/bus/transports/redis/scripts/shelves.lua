-- Which agents a node owns, or nobody ('-'): names in the hashes :own:<node>:<shelf>. Small hashes
-- Redis packs: there a name takes a fifth of what it takes in one large set.
local SHELVES = 64

local function shelf_of(agent, owner)
  local sum = 0
  for at = 1, #agent do sum = (sum * 31 + string.byte(agent, at)) % 65536 end
  return KEYS[1] .. ':own:' .. owner .. ':' .. sum % SHELVES
end

local function owns_any(owner)
  local shelves = {}
  for number = 1, SHELVES do shelves[number] = KEYS[1] .. ':own:' .. owner .. ':' .. (number - 1) end
  return redis.call('EXISTS', unpack(shelves)) > 0
end

