-- Names for requests that bring none: 32 hexadecimal digits, like nginx's own $request_id, for a fraction of what that costs.
--
-- The first 24 digits are random and a worker's own. The last eight are a number to which an odd one is added each time, so all of them come
-- before one does again (a Weyl sequence); then the others are drawn anew. So no two are alike, and nobody should take one for a secret.

local bit = require("bit")

local tobit, tohex = bit.tobit, bit.tohex

local STEP = 0x61c88647 -- 2^32 divided by the golden ratio: what follows each other looks least alike (Knuth, TAOCP 3, 6.4)
local ALL = 2 ^ 32

local ids = {}

local prefix, number, left = "", 0, 0

-- So many random bytes, as hexadecimal digits.
function ids.random(bytes)
    local source = assert(io.open("/dev/urandom", "rb"))
    local drawn = source:read(bytes)
    source:close()
    return (drawn:gsub(".", function(byte)
        return string.format("%02x", byte:byte())
    end))
end

function ids.new()
    if left == 0 then
        prefix, left = ids.random(12), ALL
    end
    left = left - 1
    number = tobit(number + STEP)
    return prefix .. tohex(number)
end

return ids
