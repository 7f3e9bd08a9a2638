-- The tables of the edge, in nginx's shared memory: host -> routes, backend -> endpoints, Ingress -> policy, host -> key pairs, key pair -> PEM.
--
-- All workers read them; only the renderer writes, through seaway.admin, one push at a time. A push leads from one revision to the next
-- and names the instance of the memory that it is meant for, so that neither a lost nor a repeated push can go unnoticed. The generation
-- changes with every push; by it a worker sees, at its next request, that what it has decoded may be old.
--
-- The memory survives a reload, but for a table whose size is another one then, whose memory nginx makes anew. Each has a name in itself, so
-- that this cannot go unnoticed: the instance is all their names together. What has none yet is filled from the renderer's journal before the
-- first request, as all of them are when nginx starts.

local cjson = require("cjson.safe")
local ids = require("seaway.ids")

local shared = ngx.shared
local meta = shared.seaway_meta
local dicts = {
    hosts = shared.seaway_hosts,
    backends = shared.seaway_backends,
    policies = shared.seaway_policies,
    certificates = shared.seaway_certificates,
    pairs = shared.seaway_pairs,
}

local NAME = "\0" -- where the name of a table's memory stands; no host and no Ingress is called so

local tables = { names = {}, fingerprint = "", master = 0 }
for name, dict in pairs(dicts) do
    tables[name] = dict
    tables.names[#tables.names + 1] = name
end
table.sort(tables.names)

local function write(name, key, value)
    local dict = dicts[name]
    if dict == nil then
        return nil, "there is no table " .. tostring(name)
    end
    if value == nil or value == cjson.null then
        dict:delete(key)
        return true
    end
    -- Never the plain set: where memory is short, it would throw out another entry without a word.
    return dict:safe_set(key, value)
end

-- Which memory this is, as this worker has it: one that is older than the last reload may have another.
function tables.instance()
    local found = {}
    for index, name in ipairs(tables.names) do
        found[index] = dicts[name]:get(NAME) or ""
    end
    return ngx.md5(table.concat(found))
end

-- The keys of a table's entries.
function tables.keys(name)
    local found = {}
    for _, key in ipairs(dicts[name]:get_keys(0)) do
        if key ~= NAME then
            found[#found + 1] = key
        end
    end
    return found
end

function tables.revision()
    return meta:get("revision")
end

function tables.generation()
    return meta:get("generation")
end

-- Writes a push. Returns what could not be written, as {table, key, reason}: the others need not wait for it.
function tables.apply(push)
    local refused = {}
    for _, entry in ipairs(push.writes) do
        local done, reason = write(entry[1], entry[2], entry[3])
        if not done then
            refused[#refused + 1] = { entry[1], entry[2], reason }
        end
    end
    meta:set("revision", push.to)
    meta:incr("generation", 1)
    return refused
end

-- A push as the renderer wrote it down: its MD5, and that. Nil if it is not what it was.
local function push_of(line)
    local hash, text = string.match(line, "^(%x+) (.*)$")
    local push = text ~= nil and ngx.md5(text) == hash and cjson.decode(text) or nil
    return type(push) == "table" and type(push.writes) == "table" and push or nil
end

local function of_tables(names, writes)
    local found = {}
    for _, entry in ipairs(writes) do
        if names[entry[1]] then
            found[#found + 1] = entry
        end
    end
    return found
end

-- Reads what the renderer pushed before. A crash may have cut the last line off, and a disk may have spoilt any: such a line is left out, and
-- what it held is pushed again when the renderer is there. Only the tables of `anew` are written: in the others it would be old for a moment.
local function replay(path, anew)
    local file = io.open(path, "rb")
    if file == nil then
        return
    end
    local pushes = 0
    for line in file:lines() do
        local push = push_of(line)
        pushes = pushes + 1
        if push == nil then
            ngx.log(ngx.ERR, "journal: line ", pushes, " is not what was written, and left out")
        else
            push.writes = of_tables(anew, push.writes)
            for _, entry in ipairs(tables.apply(push)) do
                ngx.log(ngx.ERR, "journal: ", entry[1], " ", entry[2], " does not fit: ", entry[3])
            end
        end
    end
    file:close()
end

-- Runs in the master, at a start and at every reload.
function tables.init(options)
    tables.fingerprint = options.fingerprint
    tables.master = ngx.worker.pid()
    meta:safe_add("revision", 0)
    meta:safe_add("generation", 0)
    local anew = {}
    for name, dict in pairs(dicts) do
        if dict:safe_add(NAME, ids.random(16)) then
            anew[name] = true
        end
    end
    if next(anew) ~= nil then
        for _, journal in ipairs(options.journals) do
            replay(journal, anew)
        end
    end
end

return tables
