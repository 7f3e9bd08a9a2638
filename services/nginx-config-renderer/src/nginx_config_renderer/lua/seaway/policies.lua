-- How the requests of an Ingress are treated, where that is not as for everybody. See render.py for what an entry holds.

local cache = require("seaway.cache")
local cjson = require("cjson.safe")
local tables = require("seaway.tables")

local policies = { secured = {} } -- the locations for backends that must prove who they are

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
    if policy.tls and not policies.secured[policy.at] then
        policy.deny = true -- this nginx cannot make the backend prove what it should
    end
    return policy
end

local special
special, policies.refresh = cache.new(tables.policies, decode)

-- The policy of everybody. Nil where that is what is built in, so that most requests are not held up by any.
policies.usual = nil

function policies.set_usual(text)
    policies.usual = text ~= "{}" and decode(text) or nil
end

-- What counts where a route says that it has a policy, and there is none: it found no room, or a disk has spoilt it. It might have kept clients
-- out, or made a backend prove who it is.
local LOST = { deny = true, text = '{"deny":true}' }

-- How the requests of a target are treated. Nil for as it is built in.
function policies.of(target)
    if target.special then
        return special(target.ingress) or LOST
    end
    return policies.usual
end

return policies
