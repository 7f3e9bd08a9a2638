-- What is counted of requests, by Ingress: never by what a client sends, of which there is no end.
--
-- A worker counts in its own memory and adds what is new to shared memory each second, some of it at a time, and when it ends; so a request
-- waits for nobody, and a reload loses nothing. Where that memory is full, what is new is not counted, and that is.

local shared = ngx.shared.seaway_counts

local counts = {}

local FLUSH = 1 -- seconds
local AT_ONCE = 100 -- Ingresses, before requests get a turn
local BUCKETS = { 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10 }
local LOST = "lost"

counts.buckets = BUCKETS

-- The names of cells, made once: text that is put together for each request costs more than the counting.
local CLASSES, TOOK, UPSTREAM = {}, {}, {}
for class = 1, 9 do
    CLASSES[class] = "c" .. class
end
for index = 1, #BUCKETS + 1 do
    TOOK[index], UPSTREAM[index] = "t" .. index, "u" .. index
end

local fresh, leaving = {}, {} -- Ingress -> cell -> number

local function bucket(seconds)
    for index = 1, #BUCKETS do
        if seconds <= BUCKETS[index] then
            return index
        end
    end
    return #BUCKETS + 1
end

local function add(cells, cell, number)
    cells[cell] = (cells[cell] or 0) + number
end

-- Counts one request. `took` and `upstream` are seconds; `upstream` is nil where no backend answered.
function counts.request(ingress, status, took, upstream, received, sent, tries)
    local cells = fresh[ingress]
    if cells == nil then
        cells = {}
        fresh[ingress] = cells
    end
    add(cells, CLASSES[(status - status % 100) / 100] or CLASSES[9], 1)
    add(cells, TOOK[bucket(took)], 1)
    add(cells, "ts", took)
    add(cells, "in", received)
    add(cells, "out", sent)
    if upstream ~= nil then
        add(cells, UPSTREAM[bucket(upstream)], 1)
        add(cells, "us", upstream)
    end
    if tries > 1 then
        add(cells, "r", tries - 1)
    end
end

-- Counts an endpoint that gets no requests for a while.
function counts.ejection(backend)
    fresh[backend] = fresh[backend] or {}
    add(fresh[backend], "e", 1)
end

local function store(key, number)
    local _, reason = shared:incr(key, number)
    if reason == "not found" then
        local done, why = shared:safe_add(key, number)
        if not done and why == "exists" then -- another worker was first
            shared:incr(key, number)
        elseif not done then
            shared:incr(LOST, 1)
        end
    end
end

local function leave(from, rest)
    local stored = 0
    for ingress, cells in pairs(from) do
        from[ingress] = nil
        for cell, number in pairs(cells) do
            store(ingress .. " " .. cell, number)
        end
        stored = stored + 1
        if rest ~= nil and stored % AT_ONCE == 0 then
            rest()
        end
    end
end

-- Adds all that is new to shared memory. `rest` is called in between, if it is given; whoever flushes then takes what is left too.
function counts.flush(rest)
    leave(leaving)
    leaving, fresh = fresh, {}
    leave(leaving, rest)
end

function counts.init_worker()
    shared:safe_add(LOST, 0)
    local function rest()
        ngx.sleep(0)
    end
    local function tick()
        counts.flush(rest)
    end
    ngx.timer.every(FLUSH, tick)
end

-- All that was counted, as {key, number}.
function counts.all()
    counts.flush()
    local rows = {}
    for _, key in ipairs(shared:get_keys(0)) do
        rows[#rows + 1] = { key, shared:get(key) or 0 }
    end
    return rows
end

-- How many answers an Ingress has had, and how many of them said that it failed. A moment old: workers add theirs each second.
function counts.answers(ingress)
    local all = 0
    for class = 1, 9 do
        all = all + (shared:get(ingress .. " " .. CLASSES[class]) or 0)
    end
    return all, shared:get(ingress .. " " .. CLASSES[5]) or 0
end

function counts.forget(keys)
    for _, key in ipairs(keys) do
        shared:delete(key)
    end
end

return counts
