-- How a backend is met that speaks TLS, where its Ingress says more of it: by which name, and with which certificate of ours.
--
-- Both are asked for in the locations that are made for such backends, and nowhere else. nginx reads the certificate and the key from the
-- variables themselves ("data:"), once a connection, so a key is in no file.

local cache = require("seaway.cache")
local cjson = require("cjson.safe")
local policies = require("seaway.policies")
local tables = require("seaway.tables")
local targets = require("seaway.targets")

local match = string.match

local backend_tls = {}

local pair_entry, refresh = cache.new(tables.pairs, function(text)
    local data = cjson.decode(text)
    return { text = text, certificate = "data:" .. data.c, key = "data:" .. data.k }
end)

local function asked()
    local target = targets.of_request()
    local policy = policies.of(target)
    return policy and policy.tls or {}, target
end

-- The name that its certificate must be for: as asked, else that of the Service.
function backend_tls.name()
    local tls, target = asked()
    if tls.name and tls.name ~= "" then
        return tls.name
    end
    local namespace, service = match(target.backend, "^([^/]+)/([^:]+)")
    return service .. "." .. namespace .. ".svc"
end

local function pair()
    refresh(tables.generation())
    local key = asked().pair
    return key and key ~= "" and pair_entry(key) or nil
end

-- Both are empty where nothing is to be shown.
function backend_tls.certificate()
    local found = pair()
    return found and found.certificate or ""
end

function backend_tls.key()
    local found = pair()
    return found and found.key or ""
end

return backend_tls
