-- The renderer's door to the tables, over a unix socket.
--
--     GET  /status   which memory, revision and configuration this is, and how full the tables are
--     GET  /digest   every key with the MD5 of its entry, to compare with
--     POST /apply    {"instance", "from", "to", "writes": [[table, key, entry or null], ...]}
--                    200, with "refused": [[table, key, reason], ...] if some do not fit; 409 if this is another
--                    instance or revision
--     GET  /counts   what was counted of requests, as [[key, number], ...], and the connections there are
--     POST /answers  [ingress, ...]: how many answers each has had, and how many of them were 5xx
--     POST /forget   [key, ...]: these are counted no more
--     POST /reload   makes the master read its configuration again; the answer does not say that it was good
--     POST /reopen   makes all processes open their logs anew

local cjson = require("cjson.safe")
local counts = require("seaway.counts")
local ffi = require("ffi")
local tables = require("seaway.tables")

local SIGHUP = 1
local SIGUSR1 = 10

local admin = {}

local function answer(status, data)
    ngx.status = status
    ngx.header.content_type = "application/json"
    ngx.say(cjson.encode(data))
end

local function identity()
    return { instance = tables.instance(), revision = tables.revision(), fingerprint = tables.fingerprint, pid = tables.master }
end

local function body()
    ngx.req.read_body()
    local data = ngx.req.get_body_data()
    if data ~= nil then
        return data
    end
    local path = ngx.req.get_body_file()
    local file = path and io.open(path, "rb")
    if not file then
        return ""
    end
    data = file:read("*a")
    file:close()
    return data
end

function admin.status()
    local status = identity()
    status.free, status.capacity = {}, {}
    for _, name in ipairs(tables.names) do
        status.free[name], status.capacity[name] = tables[name]:free_space(), tables[name]:capacity()
    end
    answer(200, status)
end

function admin.digest()
    local status = identity()
    local entries = {}
    for _, name in ipairs(tables.names) do
        for _, key in ipairs(tables.keys(name)) do
            entries[#entries + 1] = { name, key, ngx.md5(tables[name]:get(key) or "") }
        end
    end
    status.entries = #entries > 0 and entries or nil -- an empty table would be written as an object
    answer(200, status)
end

function admin.apply()
    local push = cjson.decode(body())
    if type(push) ~= "table" or type(push.writes) ~= "table" then
        return answer(400, { error = "the body is no push" })
    end
    if push.instance ~= tables.instance() or push.from ~= tables.revision() then
        return answer(409, identity())
    end
    local refused = tables.apply(push)
    local status = identity()
    status.refused = #refused > 0 and refused or nil -- an empty table would be written as an object
    answer(200, status)
end

function admin.counts()
    local connections = {}
    for _, state in ipairs({ "active", "reading", "writing", "waiting" }) do
        connections[state] = tonumber(ngx.var["connections_" .. state])
    end
    answer(200, { counts = counts.all(), buckets = counts.buckets, connections = connections })
end

function admin.answers()
    local ingresses = cjson.decode(body())
    if type(ingresses) ~= "table" then
        return answer(400, { error = "the body is no list of Ingresses" })
    end
    local rows = {}
    for index, ingress in ipairs(ingresses) do
        rows[index] = { ingress, counts.answers(tostring(ingress)) }
    end
    answer(200, { answers = #rows > 0 and rows or nil }) -- an empty table would be written as an object
end

function admin.forget()
    local keys = cjson.decode(body())
    if type(keys) ~= "table" then
        return answer(400, { error = "the body is no list of keys" })
    end
    counts.forget(keys)
    answer(200, identity())
end

local function tell(signal)
    if ffi.C.kill(tables.master, signal) ~= 0 then
        return answer(500, { error = "the master cannot be signalled" })
    end
    answer(202, identity())
end

function admin.reload()
    tell(SIGHUP)
end

function admin.reopen()
    tell(SIGUSR1)
end

return admin
