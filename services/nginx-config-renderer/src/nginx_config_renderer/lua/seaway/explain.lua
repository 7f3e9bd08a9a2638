-- What becomes of a request, told instead of done. nginx reads it as it reads a client's, and the code that decides is the same, on the same
-- tables; so there is nothing here that could say otherwise. Of endpoints it tells what this worker has learned.
--
-- The headers Seaway-Asked-Scheme and Seaway-Asked-Sni say what cannot be said in a request on a unix socket.

local backends = require("seaway.backends")
local canary = require("seaway.canary")
local certificates = require("seaway.certificates")
local cjson = require("cjson.safe")
local clients = require("seaway.clients")
local health = require("seaway.health")
local paths = require("seaway.paths")
local policies = require("seaway.policies")
local router = require("seaway.router")
local tables = require("seaway.tables")

local find, sub = string.find, string.sub
local var = ngx.var

local MOST = 100 -- routes of a host that are told beside the one that is taken
-- What a policy may hold that is nobody's secret; anything else is named only.
local SHOWN = {}
for name in ("at force plain max hash sticky timeouts balance retry tls deny"):gmatch("%S+") do
    SHOWN[name] = true
end

local explain = {}

local function some(list)
    return #list > 0 and list or nil -- an empty table would be written as an object
end

-- The keys by which a host may stand in a table, the closest first, and whether each does.
local function hosts(host)
    local names = { host }
    local dot = find(host, ".", 1, true)
    if dot ~= nil and dot > 1 then
        names[2] = "*" .. sub(host, dot)
    end
    names[#names + 1] = "*"
    local found = {}
    for index, name in ipairs(names) do
        found[index] = { name = name, known = tables.hosts:get(name) ~= nil }
    end
    return found
end

local function is_below(path, prefix)
    return sub(path .. "/", 1, #prefix + 1) == prefix .. "/"
end

local function why_not(route, path, taken)
    if route.exact then
        return "the path is not exactly this"
    elseif not is_below(path, route.path) then
        return "the path is not below this"
    elseif taken ~= nil and taken.exact then
        return "an Exact path goes before"
    end
    return "a longer path goes before"
end

-- The other routes of the host, and why none of them is taken.
local function others(routes, path, taken)
    local found = {}
    for _, each in ipairs({ routes.exact, routes.prefixes }) do
        for _, route in pairs(each) do
            if route ~= taken then
                found[#found + 1] = {
                    path = route.path,
                    exact = route.exact,
                    ingress = route.target.ingress,
                    backend = route.target.backend,
                    why = why_not(route, path, taken),
                }
            end
        end
    end
    table.sort(found, function(a, b)
        return #a.path > #b.path or #a.path == #b.path and (a.path < b.path or a.path == b.path and a.exact and not b.exact)
    end)
    local left = #found - MOST
    for index = #found, MOST + 1, -1 do
        found[index] = nil
    end
    return some(found), left > 0 and left or nil
end

local function canaries(route, target)
    local found = {}
    for index, one in ipairs(route.canaries or {}) do
        local able, asked = canary.look(one)
        found[index] = {
            backend = one.target.backend,
            able = able,
            asked = asked,
            share = one.share,
            header = one.header,
            value = one.value,
            pattern = one.pattern,
            cookie = one.cookie,
            chosen = one.target == target,
        }
    end
    return some(found)
end

local function endpoints(name)
    local backend = backends.get(name)
    if backend == nil then
        return nil
    end
    local known, now, found = backends.known(backend) or {}, ngx.now(), {}
    for index, endpoint in ipairs(backend.endpoints) do
        local facts = known[endpoint.name] or {}
        found[index] = {
            address = endpoint.name,
            rests = health.ejected(facts, now) and facts.until_ - now or nil,
            fails = facts.fails,
            busy = facts.busy,
            took = facts.took,
        }
    end
    return some(found)
end

local function policy(target)
    local found = policies.of(target)
    local shown = {}
    for name, value in pairs(found and cjson.decode(found.text) or {}) do
        shown[name] = SHOWN[name] and value or "(not shown)"
    end
    return next(shown) and shown or nil
end

-- The name that the client says in the handshake.
local function sni()
    local asked = var.http_seaway_asked_sni
    return asked ~= nil and asked ~= "" and asked or var.host
end

-- What the clients of a host must show, and what they are answered whatever they show, if so.
local function demand(routes)
    local client, named = certificates.demand(routes.key, sni())
    local told = client and { verify = client.verify, depth = client.depth, shown = client.shown }
    if var.http_seaway_asked_scheme == "http" then
        return told, "@308"
    end
    return told, clients.refuse(client, named)
end

local function request()
    local routes = router.routes_of(var.host)
    local path = paths.of_request()
    local told = { host = var.host, path = path or var.uri, hosts = hosts(var.host), hosts_key = routes and routes.key, tls = routes and routes.tls }
    local target, location, route = router.decide(routes, path, "http_seaway_asked_scheme")
    told.location = location
    if routes ~= nil then
        told.others, told.left_out = others(routes, told.path, route)
    end
    if route ~= nil then
        local main = route.target
        told.route = { path = route.path, exact = route.exact, ingress = main.ingress, backend = main.backend }
        told.canaries = canaries(route, target)
        told.backend = (target or main).backend
        told.endpoints = endpoints(told.backend)
        told.policy = policy(main)
    end
    told.goes = target ~= nil
    if routes ~= nil and routes.guarded then
        local refused
        told.clients, refused = demand(routes)
        told.location, told.goes = refused or location, told.goes and refused == nil
    end
    return told
end

function explain.answer()
    router.refresh()
    local told = request()
    told.certificates = certificates.look(sni())
    told.instance, told.revision, told.worker = tables.instance(), tables.revision(), ngx.worker.pid()
    local text = cjson.encode(told)
    ngx.header.content_type, ngx.header.content_length = "application/json", #text
    ngx.print(text)
end

return explain
