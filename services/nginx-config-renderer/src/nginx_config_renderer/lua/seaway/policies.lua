-- How the requests of an Ingress are treated, where that is not as for everybody. See render.py for what an entry holds.

local cache = require("seaway.cache")
local cjson = require("cjson.safe")
local tables = require("seaway.tables")

local policies = {}

-- A variable of nginx, or text as it is: {"$request_uri"} -> {variable "request_uri"}
local function parts(given)
    local found = {}
    for index, part in ipairs(given) do
        found[index] = part:sub(1, 1) == "$" and { name = part:sub(2) } or { text = part }
    end
    return found
end

local function decode(text)
    local policy = cjson.decode(text)
    policy.text = text
    if policy.hash then
        policy.hash = parts(policy.hash)
    end
    if policy.timeouts then
        policy.connect, policy.send, policy.read = unpack(policy.timeouts)
    end
    if policy.retry then
        local on = {}
        for _, condition in ipairs(policy.retry.on) do
            on[condition] = true
        end
        policy.retry.on = on
    end
    return policy
end

policies.get, policies.refresh = cache.new(tables.policies, decode)

return policies
