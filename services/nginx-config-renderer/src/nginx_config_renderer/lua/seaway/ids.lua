-- Names for requests that bring none: 32 hexadecimal digits, like nginx's own $request_id, for a fraction of what that costs.
--
-- The first 24 digits are random and a worker's own. The last eight are a number to which an odd one is added each time, so all of them come
-- before one does again (a Weyl sequence); then the others are drawn anew. So no two are alike, and nobody should take one for a secret.

local bit = require("bit")
local ffi = require("ffi")
local request = require("resty.core.base").get_request
require("resty.core.var") -- declares what is called here

local band, rshift, tobit = bit.band, bit.rshift, bit.tobit
local set = ffi.C.ngx_http_lua_ffi_var_set

local STEP = 0x61c88647 -- 2^32 divided by the golden ratio: what follows each other looks least alike (Knuth, TAOCP 3, 6.4)
local ALL = 2 ^ 32
local FIXED, DIGITS = 24, 32
local PAIRS = ffi.new("uint16_t[256]") -- of each octet the two digits
local VARIABLE = "seaway_request_id"

local ids = {}

local number, left = 0, 0
local name = ffi.new("unsigned char[?]", DIGITS)
local numbered = ffi.cast("uint16_t *", name + FIXED)
local lowered = ffi.new("unsigned char[?]", #VARIABLE)
local reason, length = ffi.new("unsigned char[256]"), ffi.new("size_t[1]")

for octet = 0, 255 do
    ffi.copy(PAIRS + octet, string.format("%02x", octet), 2)
end

-- So many random bytes, as hexadecimal digits.
function ids.random(bytes)
    local source = assert(io.open("/dev/urandom", "rb"))
    local drawn = source:read(bytes)
    source:close()
    return (drawn:gsub(".", function(byte)
        return string.format("%02x", byte:byte())
    end))
end

-- Gives the request a new name, in $seaway_request_id. By way of ngx.var that would be a string of Lua, which costs as much as all else
-- that is done to route a request: it is made, looked for among all others, and collected as garbage.
function ids.give()
    if left == 0 then
        ffi.copy(name, ids.random(FIXED / 2), FIXED)
        left = ALL
    end
    left = left - 1
    number = tobit(number + STEP)
    numbered[0] = PAIRS[rshift(number, 24)]
    numbered[1] = PAIRS[band(rshift(number, 16), 255)]
    numbered[2] = PAIRS[band(rshift(number, 8), 255)]
    numbered[3] = PAIRS[band(number, 255)]
    length[0] = 256
    if set(request(), VARIABLE, #VARIABLE, lowered, name, DIGITS, reason, length) ~= 0 then
        error(ffi.string(reason, length[0]))
    end
end

return ids
