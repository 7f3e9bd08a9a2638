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

-- What is counted: answers by the first digit of their status, requests by how long they took and by how long the backend did, the sums of
-- both, octets, tries beyond the first, ejections. In its own memory a worker knows a cell by its place, which costs less than its name.
local CELLS, PLACE = {}, {}

local function name_cells(prefix, count)
    for number = 1, count do
        CELLS[#CELLS + 1] = prefix .. number
    end
    return #CELLS - count -- the place before the first
end

local CLASS, TOOK, UPSTREAM = name_cells("c", 9), name_cells("t", #BUCKETS + 1), name_cells("u", #BUCKETS + 1)
for _, name in ipairs({ "ts", "us", "in", "out", "r", "e" }) do
    CELLS[#CELLS + 1] = name
    PLACE[name] = #CELLS
end
local TOOK_SUM, UPSTREAM_SUM, IN, OUT, RETRIES, EJECTIONS = PLACE.ts, PLACE.us, PLACE["in"], PLACE.out, PLACE.r, PLACE.e

local fresh, leaving = {}, {} -- Ingress -> what was counted of it

local function begin(ingress)
    local cells = {}
    for place = 1, #CELLS do
        cells[place] = 0
    end
    fresh[ingress] = cells
    return cells
end
jit.off(begin) -- what is compiled of the counting shall be what is nearly always done, without this loop

local function bucket(seconds)
    if seconds <= BUCKETS[1] then
        return 1 -- which is nearly always; what is compiled for that has no loop
    end
    for index = 2, #BUCKETS do
        if seconds <= BUCKETS[index] then
            return index
        end
    end
    return #BUCKETS + 1
end

local function add(cells, place, number)
    cells[place] = cells[place] + number
end

-- Counts one request. `took` and `upstream` are seconds; `upstream` is nil where no backend answered.
function counts.request(ingress, status, took, upstream, received, sent, tries)
    local cells = fresh[ingress] or begin(ingress)
    local class = (status - status % 100) / 100
    add(cells, CLASS + (class >= 1 and class <= 9 and class or 9), 1)
    add(cells, TOOK + bucket(took), 1)
    add(cells, TOOK_SUM, took)
    add(cells, IN, received)
    add(cells, OUT, sent)
    if upstream ~= nil then
        add(cells, UPSTREAM + bucket(upstream), 1)
        add(cells, UPSTREAM_SUM, upstream)
    end
    if tries > 1 then
        add(cells, RETRIES, tries - 1)
    end
end

-- Counts an endpoint that gets no requests for a while.
function counts.ejection(backend)
    add(fresh[backend] or begin(backend), EJECTIONS, 1)
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
        for place, number in ipairs(cells) do
            if number ~= 0 then
                store(ingress .. " " .. CELLS[place], number)
            end
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
        ngx.sleep(0.001) -- not 0, which the module of Debian warns of: its nginx has no queue of what is to be done next
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
        all = all + (shared:get(ingress .. " c" .. class) or 0)
    end
    return all, shared:get(ingress .. " c5") or 0
end

function counts.forget(keys)
    for _, key in ipairs(keys) do
        shared:delete(key)
    end
end

return counts
