-- The endpoints of a backend, as a worker has decoded them, and what it has learned about them.
--
-- What is learned (failures, requests under way, how long answers took) is each worker's own. It belongs to an endpoint's name, so it
-- outlives a change of the other endpoints, and goes with the endpoint.

local cache = require("seaway.cache")
local cjson = require("cjson.safe")
local tables = require("seaway.tables")

local backends = {}

local learned = {} -- backend -> endpoint's name -> what is known of it

local function keep(key, names)
    local of = learned[key]
    if of == nil then
        return
    end
    for name in pairs(of) do
        if not names[name] then
            of[name] = nil
        end
    end
    if next(of) == nil then
        learned[key] = nil
    end
end

local function decode(text, key)
    local endpoints = cjson.decode(text)
    local count = #endpoints
    local names = learned[key] and {} or nil
    for _, endpoint in ipairs(endpoints) do
        endpoint.name = endpoint[1] .. ":" .. endpoint[2]
        if names then
            names[endpoint.name] = true
        end
    end
    if names then
        keep(key, names)
    end
    -- Workers begin at different endpoints, or all of them would load the first one together.
    return { key = key, text = text, endpoints = endpoints, count = count, turn = count > 0 and math.random(count) or 0 }
end

local generation, refresh
backends.get, refresh = cache.new(tables.backends, decode)

-- Backends that are gone leave nothing behind for longer than this many seconds.
local SWEEP = 60
local swept = 0

local function sweep()
    local now = ngx.now()
    if now - swept < SWEEP then
        return
    end
    swept = now
    for key in pairs(learned) do
        if tables.backends:get(key) == nil then
            learned[key] = nil
        end
    end
end

function backends.refresh(now)
    if now ~= generation then
        generation = now
        refresh(now)
        sweep()
    end
end

-- What is known of the endpoints of a backend, by their names. To be read: nil if nothing is.
function backends.known(backend)
    return learned[backend.key]
end

-- What is known of one endpoint. To be written.
function backends.learn(backend, name)
    local of = learned[backend.key]
    if of == nil then
        of = {}
        learned[backend.key] = of
    end
    local facts = of[name]
    if facts == nil then
        facts = { fails = 0, busy = 0 }
        of[name] = facts
    end
    return facts
end

-- Forgets an endpoint of which there is nothing to know any more.
function backends.forget(backend, name)
    local of = learned[backend.key]
    local facts = of and of[name]
    if facts and facts.fails == 0 and facts.busy == 0 and facts.took == nil then
        of[name] = nil
        if next(of) == nil then
            learned[backend.key] = nil
        end
    end
end

return backends
