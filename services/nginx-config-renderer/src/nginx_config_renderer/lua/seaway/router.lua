-- What happens to a request: which backend it goes to, and which endpoint of it.
--
-- route() runs once a request, before anything else; balance() runs once a try.

local balancer = require("ngx.balancer")
local cache = require("seaway.cache")
local cjson = require("cjson.safe")
local tables = require("seaway.tables")

local byte, find, sub = string.byte, string.find, string.sub
local var = ngx.var
local generation_of = tables.generation

local SLASH = byte("/")
local NOT_FOUND, UNAVAILABLE, TO_HTTPS, TO_SLASH = "404", "503", "308", "301"
local ANY_HOST = "*"
local MORE_TRIES = 2

local router = { strict_trailing_slash = true, hsts = "" }

local function decode_host(text)
    local data = cjson.decode(text)
    return { text = text, exact = data.e, prefixes = data.p, tls = data.t }
end

local function decode_backend(text)
    local endpoints = cjson.decode(text)
    local count = #endpoints
    -- Workers begin at different endpoints, or all of them would load the first one together.
    return { text = text, endpoints = endpoints, count = count, turn = count > 0 and math.random(count) or 0 }
end

local host_entry, refresh_hosts = cache.new(tables.hosts, decode_host)
local backend_entry, refresh_backends = cache.new(tables.backends, decode_backend)

-- The host itself, then its first label as a wildcard, then whoever takes any host.
local function routes_of(host)
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
    local key = routes.exact[path]
    if key ~= nil then
        return key
    end
    local prefixes = routes.prefixes
    if byte(path, #path) == SLASH then
        path = sub(path, 1, -2)
    end
    while path ~= "" do
        key = prefixes[path]
        if key ~= nil then
            return key
        end
        path = parent(path)
    end
    return prefixes[""]
end

-- For a host with certificates, or a route that wants one: whether this request came by HTTP and shall not.
local function to_https(routes, options)
    if var.scheme == "http" then
        return options == nil or options.force or not options.plain
    end
    if routes.tls then
        var.seaway_hsts = router.hsts
    end
    return false
end

-- The key of the backend that this request goes to, or the status that it is answered with.
function router.route()
    local now = generation_of()
    refresh_hosts(now)
    refresh_backends(now)
    local routes = routes_of(var.host)
    local key = routes ~= nil and match(routes, var.uri) or nil
    if key == nil then
        local slash = routes ~= nil and not router.strict_trailing_slash and routes.exact[var.uri .. "/"] ~= nil
        return slash and TO_SLASH or NOT_FOUND
    end
    local options
    if type(key) == "table" then
        key, options = key[1], key[2]
    end
    if (routes.tls or options ~= nil and options.force) and to_https(routes, options) then
        return TO_HTTPS
    end
    local backend = backend_entry(key)
    if backend == nil or backend.count == 0 then
        return UNAVAILABLE
    end
    return key
end

local function next_endpoint(backend)
    local turn = backend.turn % backend.count + 1
    backend.turn = turn
    return backend.endpoints[turn]
end

-- An endpoint that this request has not tried yet, if there is one.
local function another_endpoint(backend)
    local tried = var.upstream_addr or ""
    for _ = 1, backend.count do
        local endpoint = next_endpoint(backend)
        if not find(tried, endpoint[1] .. ":" .. endpoint[2], 1, true) then
            return endpoint
        end
    end
    return next_endpoint(backend)
end

-- Names the endpoint of this try.
function router.balance()
    local backend = backend_entry(var.seaway_backend)
    if backend == nil or backend.count == 0 then
        return ngx.exit(ngx.ERROR) -- the last endpoint went away since route()
    end
    local endpoint
    if balancer.get_last_failure() == nil then
        endpoint = next_endpoint(backend)
        if backend.count > 1 then
            balancer.set_more_tries(backend.count > MORE_TRIES and MORE_TRIES or backend.count - 1)
        end
    else
        endpoint = another_endpoint(backend)
    end
    local done, reason = balancer.set_current_peer(endpoint[1], endpoint[2])
    if not done then
        ngx.log(ngx.ERR, "cannot use endpoint ", endpoint[1], ":", endpoint[2], ": ", reason)
        return ngx.exit(ngx.ERROR)
    end
end

return router
