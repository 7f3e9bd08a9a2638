-- Where a request goes: the backend, the Ingress that says so, and whether its requests are treated by a policy of their own.
--
-- A target has a text, "shop/web:80 shop/shop" or "shop/web:80 shop/shop p", which nginx's own variables and logs are made of. The phases of a
-- request find the target itself, by the address of the request in nginx's memory: that is nobody else's until the request is logged, and
-- stays through jumps to other locations, where ngx.ctx is lost. To find it by its text costs a string in each phase: 0.5 us of 17. (What a
-- subrequest of an operator's template leaves here, which nobody logs, is written over.)

local ffi = require("ffi")
local request = require("resty.core.base").get_request

local cast, address = ffi.cast, ffi.typeof("uintptr_t")

local targets = {}

-- Those that were made lately. Held weakly: a host's routes keep those that are in use.
local known = setmetatable({}, { __mode = "v" })

function targets.new(backend, ingress, special)
    local text = backend .. " " .. ingress .. (special and " p" or "")
    local target = known[text]
    if target == nil then
        target = { backend = backend, ingress = ingress, special = special, text = text }
        known[text] = target
    end
    return target
end

local under_way = {} -- address of a request -> its target

local function here()
    return tonumber(cast(address, request()))
end

-- Gives the request a target, or none. Returns the text.
function targets.give(target)
    under_way[here()] = target
    return target and target.text
end

-- The target of the request. Nil where it has none.
function targets.of_request()
    return under_way[here()]
end

-- The same, for the last time: the request is over.
function targets.take()
    local key = here()
    local target = under_way[key]
    under_way[key] = nil
    return target
end

return targets
