-- What happens to a request, decided once, before anything else: which backend it goes to, and by which location; or what it is answered.
--
-- decide() says what is done, and seaway.explain tells it. route() does it: it gives the target (see seaway.targets), or nothing if the
-- request is nobody's, and where it is not treated as usual it names the location in $seaway_jump. finish() runs when it is over.

local backends = require("seaway.backends")
local balance = require("seaway.balance")
local cache = require("seaway.cache")
local canary = require("seaway.canary")
local certificates = require("seaway.certificates")
local cjson = require("cjson.safe")
local counts = require("seaway.counts")
local ids = require("seaway.ids")
local paths = require("seaway.paths")
local policies = require("seaway.policies")
local tables = require("seaway.tables")
local targets = require("seaway.targets")

local byte, find, sub = string.byte, string.find, string.sub
local set_header = ngx.req.set_header
local var = ngx.var
local generation_of = tables.generation

local SLASH = byte("/")
local BAD_PATH, FORBIDDEN, NOT_FOUND, TOO_LARGE, UNAVAILABLE, DENIED = "@400", "@403", "@404", "@413", "@503", "@denied"
local TO_HTTPS, TO_SLASH = "@308", "@301"
local ANY_HOST = "*"
local FALLBACK = "@default" -- what answers where nobody else does, if the operator has named a Service for that
local NOBODY = "-" -- where metrics count what no Ingress claims

local router = { strict_trailing_slash = true, hsts = "", scheme = "scheme" }

-- {target, path, exact, canaries} of what the table holds
local function decode_route(data, path, exact)
    local more = data[3] or {}
    local route = { target = targets.new(data[1], data[2], more.p), path = path, exact = exact }
    for index, one in ipairs(more.c or {}) do
        route.canaries = route.canaries or {}
        route.canaries[index] = canary.decode(one, targets.new(one.b, data[2], more.p))
    end
    return route
end

local function decode_host(text, key)
    local data = cjson.decode(text)
    for _, routes in ipairs({ data.e, data.p }) do
        for path, route in pairs(routes) do
            routes[path] = decode_route(route, path, routes == data.e)
        end
    end
    return { text = text, key = key, exact = data.e, prefixes = data.p, tls = data.t, guarded = data.a }
end

local host_entry, refresh_hosts = cache.new(tables.hosts, decode_host)

-- The host itself, then its first label as a wildcard, then whoever takes any host.
function router.routes_of(host)
    local routes = host_entry(host)
    if routes ~= nil then
        return routes
    end
    local dot = find(host, ".", 1, true)
    if dot ~= nil and dot > 1 then
        routes = host_entry("*" .. sub(host, dot))
        if routes ~= nil then
            return routes
        end
    end
    return host_entry(ANY_HOST)
end

local function parent(path)
    for at = #path, 1, -1 do
        if byte(path, at) == SLASH then
            return sub(path, 1, at - 1)
        end
    end
    return ""
end

local function match(routes, path)
    local route = routes.exact[path]
    if route ~= nil then
        return route
    end
    local prefixes = routes.prefixes
    if byte(path, #path) == SLASH then
        path = sub(path, 1, -2)
    end
    while path ~= "" do
        route = prefixes[path]
        if route ~= nil then
            return route
        end
        path = parent(path)
    end
    return prefixes[""]
end

-- For a host with certificates, or a route that wants one: whether this request came by HTTP and shall not.
local function to_https(routes, policy, scheme)
    if var[scheme] == "http" then
        return policy == nil or policy.force or not policy.plain
    end
    if routes.tls then
        var.seaway_hsts = router.hsts
    end
    return false
end

-- Whether the body is said to be larger than the policy lets it be. One that comes without a length is measured by nginx on its way.
local function too_large(policy)
    local length = policy.max and tonumber(var.content_length)
    return length ~= nil and length > policy.max
end

-- Where a request to `path` goes, if anywhere; else what it is answered.
local function find_route(routes, path)
    local route = routes ~= nil and match(routes, path) or nil
    if route ~= nil then
        return route
    end
    if routes ~= nil and not router.strict_trailing_slash and routes.exact[path .. "/"] ~= nil then
        return nil, TO_SLASH
    end
    local fallback = host_entry(FALLBACK)
    return fallback and fallback.prefixes[""], NOT_FOUND
end

function router.refresh()
    local now = generation_of()
    refresh_hosts(now)
    backends.refresh(now)
    policies.refresh(now)
end

-- What becomes of a request: its target, if it goes anywhere; the location that it jumps to, if it does; and the route that it has taken.
-- `path` is that of seaway.paths; `scheme` names the variable that says how it came.
function router.decide(routes, path, scheme)
    if path == nil then
        return nil, BAD_PATH
    end
    local route, answer = find_route(routes, path)
    if route == nil then
        return nil, answer
    end
    local target = route.target
    local policy = policies.of(target)
    if routes ~= nil and (routes.tls or policy ~= nil and policy.force) and to_https(routes, policy, scheme) then
        return nil, TO_HTTPS, route
    end
    if route.canaries ~= nil then
        target = canary.choose(target, route.canaries, policy)
    end
    local backend = backends.get(target.backend)
    if backend == nil or backend.count == 0 then
        return nil, UNAVAILABLE, route
    end
    if policy == nil then
        return target, nil, route
    end
    if policy.deny then
        return nil, DENIED, route
    end
    if too_large(policy) then
        return nil, TOO_LARGE, route
    end
    return target, policy.at, route
end

-- For a host whose clients must show a certificate: what is answered to one that has not. Nil for who may come in.
local function keep_out(routes)
    if var.https == "on" then
        return certificates.judge(routes.key)
    end
    return var[router.scheme] == "http" and TO_HTTPS or FORBIDDEN
end

function router.route()
    router.refresh()
    ids.give()
    local path, asked = paths.of_request()
    if asked ~= nil then
        set_header("Host", asked) -- what counts if the whole address stands in the first line (RFC 9112 section 3.2.2)
    end
    local routes = router.routes_of(var.host)
    local answer = routes ~= nil and routes.guarded and keep_out(routes) or nil
    if answer ~= nil then
        var.seaway_jump = answer
        return nil
    end
    local target, location, route = router.decide(routes, path, router.scheme)
    if location ~= nil then
        var.seaway_jump = location
    end
    target = target or route and route.target -- what the edge answers itself is counted and logged for whose it would have been
    return targets.give(target)
end

local function learn(target)
    local backend = backends.get(target.backend)
    if backend == nil then
        return 0
    end
    return balance.learn(backend, policies.of(target), ngx.status)
end

-- A request has failed, and what answers where nobody else does is to answer it. Its new target, for the same Ingress; nothing if there is none.
function router.fail(status)
    local target = targets.of_request()
    if target ~= nil then
        local backend = backends.get(target.backend)
        if backend ~= nil then
            balance.learn(backend, policies.of(target), status)
        end
    end
    local fallback = host_entry(FALLBACK)
    local route = fallback and fallback.prefixes[""]
    local backend = route and backends.get(route.target.backend)
    if backend == nil or backend.count == 0 then
        return targets.give(nil)
    end
    return targets.give(targets.new(route.target.backend, target and target.ingress or NOBODY))
end

function router.finish()
    local target = targets.take()
    local tries, upstream = 0, nil
    if target ~= nil then
        tries, upstream = learn(target)
    end
    local took = ngx.now() - ngx.req.start_time()
    local received, sent = tonumber(var.request_length) or 0, tonumber(var.bytes_sent) or 0
    counts.request(target and target.ingress or NOBODY, ngx.status, took, upstream, received, sent, tries)
end

return router
