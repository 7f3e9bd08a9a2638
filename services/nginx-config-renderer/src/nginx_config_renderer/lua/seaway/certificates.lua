-- Which certificates a client is shown: those of the host that it names (SNI), else of its wildcard, else the default one, which stands
-- in nginx.conf. Key pairs are parsed once a worker, and again when they change.

local cache = require("seaway.cache")
local cjson = require("cjson.safe")
local clients = require("seaway.clients")
local ssl = require("ngx.ssl")
local tables = require("seaway.tables")

local find, lower, sub = string.find, string.lower, string.sub
local ANY_HOST = "*"
local SHOWN = "@default" -- for hosts without a certificate, if the operator has given one

local certificates = {} -- `passed`: the directory of the hosts that are passed on, where there can be any

local function decode_host(text, key)
    local data = cjson.decode(text)
    return { text = text, key = key, pairs = data.p or data, client = data.v and clients.decode(data) or nil }
end

local function decode_pair(text)
    local data = cjson.decode(text)
    local chain, reason = ssl.parse_pem_cert(data.c)
    local key
    if chain ~= nil then
        key, reason = ssl.parse_pem_priv_key(data.k)
    end
    return { text = text, chain = chain, key = key, reason = reason }
end

local host_entry, refresh_hosts = cache.new(tables.certificates, decode_host)
local pair_entry, refresh_pairs = cache.new(tables.pairs, decode_pair)

local function of(name)
    local entry = host_entry(name)
    local dot = entry == nil and find(name, ".", 1, true) or nil
    if dot ~= nil and dot > 1 then
        entry = host_entry("*" .. sub(name, dot))
    end
    return entry or host_entry(ANY_HOST)
end

-- The key pairs of a host. One that only asks its clients for something has those of its wildcard, or of any host.
local function pairs_of(entry, name)
    if #entry.pairs > 0 or entry.key == ANY_HOST then
        return entry.pairs
    end
    local dot = find(name, ".", 1, true)
    local wider = dot ~= nil and dot > 1 and host_entry("*" .. sub(name, dot)) or nil
    if wider == nil or #wider.pairs == 0 then
        wider = host_entry(ANY_HOST)
    end
    return wider ~= nil and wider.pairs or entry.pairs
end

local function usable(names)
    local found = {}
    for _, name in ipairs(names) do
        local pair = pair_entry(name)
        if pair ~= nil and pair.key ~= nil then
            found[#found + 1] = pair
        elseif pair ~= nil then
            ngx.log(ngx.ERR, "key pair ", name, " cannot be used: ", pair.reason)
        end
    end
    return found
end

-- Whether connections to a name are passed on unopened. They do not come here by TCP, and whoever comes by another way (QUIC) gets no
-- answer from us.
local function is_passed(name)
    for _, file in ipairs({ name, "*" .. sub(name, find(name, ".", 1, true) or #name + 1) }) do
        local found = find(file, "^[*a-z0-9][a-z0-9.-]*$") and io.open(certificates.passed .. file, "rb")
        if found then
            local text = found:read(1)
            found:close()
            return text == "["
        end
    end
    return false
end

function certificates.refresh()
    local now = tables.generation()
    refresh_hosts(now)
    refresh_pairs(now)
end

-- What a client is shown that names this host: the key of the table, and of each key pair its name and why it cannot be used, if so.
-- None where it is the default certificate, or, if `passed`, the backend's own.
function certificates.look(name)
    certificates.refresh()
    local entry = of(lower(name))
    local found = {}
    for index, pair in ipairs(entry ~= nil and pairs_of(entry, lower(name)) or {}) do
        local known = pair_entry(pair)
        found[index] = { name = pair, reason = known == nil and "nginx has no key pair for it" or known.key == nil and known.reason or nil }
    end
    return {
        host = entry and entry.key,
        pairs = #found > 0 and found or nil,
        passed = certificates.passed ~= nil and is_passed(lower(name)) or nil,
    }
end

-- What the clients of the host that has this key must show, and whether one that says this name in the handshake is asked for it: it must
-- be the name of that host, or of one that asks for the same.
function certificates.demand(key, name)
    certificates.refresh()
    local entry = host_entry(key)
    return entry and entry.client, entry ~= nil and name ~= nil and of(lower(name)) == entry
end

-- Whether a client may ask the host that has this key; if not, what it is answered.
function certificates.judge(key)
    return clients.judge(certificates.demand(key, ngx.var.ssl_server_name))
end

-- Runs in the handshake.
function certificates.choose()
    local name = ssl.server_name() or ""
    if name ~= "" and certificates.passed and is_passed(lower(name)) then
        return ngx.exit(ngx.ERROR)
    end
    certificates.refresh()
    local shown = host_entry(SHOWN)
    local entry = name ~= "" and of(lower(name)) or shown
    if entry == nil then
        return
    end
    if entry.client ~= nil and not clients.ask(entry.client) then
        return ngx.exit(ngx.ERROR)
    end
    local found = usable(pairs_of(entry, lower(name)))
    if #found == 0 and shown ~= nil then
        found = usable(shown.pairs)
    end
    if #found == 0 then
        return
    end
    ssl.clear_certs()
    for _, pair in ipairs(found) do
        local done, reason = ssl.set_cert(pair.chain)
        if done then
            done, reason = ssl.set_priv_key(pair.key)
        end
        if not done then
            ngx.log(ngx.ERR, "a certificate of ", name, " cannot be used: ", reason)
            return ngx.exit(ngx.ERROR)
        end
    end
end

return certificates
