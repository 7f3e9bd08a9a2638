-- Where a request goes: the backend, the Ingress that says so, and whether its requests are treated by a policy of their own.
--
-- A target travels through the phases of a request as one variable of text, "shop/web:80 shop/shop" or "shop/web:80 shop/shop p", since
-- whatever else nginx offers is lost at a jump to another location, or costs more.

local match = string.match

local targets = {}

-- Texts that were asked for lately. Held weakly: a host's routes keep those that are in use.
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

-- The target that a request carries. Nil where it has none.
function targets.of(text)
    local target = known[text]
    if target ~= nil then
        return target
    end
    local backend, ingress, special = match(text, "^(%S+) (%S+)( ?p?)$")
    return backend ~= nil and targets.new(backend, ingress, special == " p") or nil
end

return targets
