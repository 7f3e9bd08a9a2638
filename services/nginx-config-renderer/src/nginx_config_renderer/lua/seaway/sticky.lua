-- A client that stays at its endpoint, by a cookie: "<client or endpoint>|<backend>", both as hexadecimal digests.
--
-- Balanced, the first part is a random name of the client, whose endpoint is where the ring has it. Persistent, it names the endpoint. The
-- second part says which backend it is meant for, so that a canary and the main backend of a route can be told apart.

local ring = require("seaway.ring")

local var, md5, find, sub = ngx.var, ngx.md5, string.find, string.sub

local sticky = {}

local function digest_of(backend)
    return md5(backend)
end

local function read(policy)
    local value = var["cookie_" .. policy.sticky.name]
    local bar = value and find(value, "|", 1, true)
    if bar == nil then
        return nil
    end
    return sub(value, 1, bar - 1), sub(value, bar + 1)
end

-- Browsers that take SameSite=None for Strict (iOS 12, Safari on macOS 10.14, Chrome 51 to 66, UC Browser before 12.13.2).
local function misreads_none(agent)
    if agent == nil then
        return false
    end
    local chrome = tonumber(agent:match("Chrom[a-z]+/(%d+)"))
    return agent:find("CPU iPhone OS 12", 1, true) ~= nil
        or agent:find("CPU OS 12", 1, true) ~= nil
        or agent:find("Mac OS X 10_14", 1, true) ~= nil and agent:find("Safari", 1, true) ~= nil and chrome == nil
        or chrome ~= nil and chrome >= 51 and chrome <= 66
end

local function write(policy, id, backend)
    local options = policy.sticky
    local text = options.name .. "=" .. id .. "|" .. digest_of(backend) .. options.attributes
    if options.expires then
        text = text .. "; Expires=" .. ngx.cookie_time(ngx.time() + options.expires)
    end
    if options.secure or options.secure == nil and var.scheme == "https" then
        text = text .. "; Secure"
    end
    text = text .. "; HttpOnly"
    if options.same_site and not (options.same_site == "None" and options.conditional and misreads_none(var.http_user_agent)) then
        text = text .. "; SameSite=" .. options.same_site
    end
    var.seaway_cookie = text
end

-- Which of some backends the client's cookie is meant for. Nil if none.
function sticky.meant(policy, names)
    local _, meant = read(policy)
    for _, name in ipairs(names) do
        if meant == digest_of(name) then
            return name
        end
    end
    return nil
end

local function named(backend, id)
    for _, endpoint in ipairs(backend.endpoints) do
        if md5(endpoint.name) == id then
            return endpoint
        end
    end
    return nil
end

local function stay(backend, policy, skip)
    local id, meant = read(policy)
    local mine = id and meant == digest_of(backend.key) and named(backend, id) or nil
    if mine and not skip(mine) then
        return mine
    end
    local endpoint = ring.find(backend, tostring(math.random()), skip)
    if not mine or policy.sticky.moves then
        write(policy, md5(endpoint.name), backend.key)
    end
    return endpoint
end

local function belong(backend, policy, skip, again)
    local id, meant = read(policy)
    if id == nil or meant ~= digest_of(backend.key) or again and policy.sticky.moves then
        id = md5(var.request_id .. math.random())
        write(policy, id, backend.key)
    end
    return ring.find(backend, id, skip)
end

-- The endpoint of this client. `again`: one was tried and failed.
function sticky.pick(backend, policy, skip, again)
    if policy.sticky.persistent then
        return stay(backend, policy, skip)
    end
    return belong(backend, policy, skip, again)
end

return sticky
