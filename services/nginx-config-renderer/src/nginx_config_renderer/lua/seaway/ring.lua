-- Consistent hashing: each endpoint owns points of a ring, and a key belongs to the owner of the next point. When an endpoint comes or
-- goes, only its own share of the keys moves (Karger et al., 1997).

local ffi = require("ffi")

local md5_bin, byte = ngx.md5_bin, string.byte

local POINTS = 25 -- digests an endpoint; each gives four points

local ring = {}

local function number(digest, at)
    local a, b, c, d = byte(digest, at, at + 3)
    return ((a * 256 + b) * 256 + c) * 256 + d
end

local function build(endpoints)
    local owned = {}
    for _, endpoint in ipairs(endpoints) do
        for point = 1, POINTS do
            local digest = md5_bin(endpoint.name .. "#" .. point)
            for at = 1, 13, 4 do
                owned[#owned + 1] = { number(digest, at), endpoint }
            end
        end
    end
    table.sort(owned, function(a, b)
        return a[1] < b[1] or a[1] == b[1] and a[2].name < b[2].name
    end)
    local built = { positions = ffi.new("uint32_t[?]", #owned), owners = {}, count = #owned }
    for index, point in ipairs(owned) do
        built.positions[index - 1], built.owners[index - 1] = point[1], point[2]
    end
    return built
end

-- The index of the first point that is not before `position`.
local function at_or_after(built, position)
    local low, high = 0, built.count
    while low < high do
        local middle = math.floor((low + high) / 2)
        if built.positions[middle] < position then
            low = middle + 1
        else
            high = middle
        end
    end
    return low % built.count
end

-- The endpoint that `key` belongs to. Those for which `skip` says so are passed over, unless that leaves none.
function ring.find(backend, key, skip)
    local built = backend.ring
    if built == nil then
        built = build(backend.endpoints)
        backend.ring = built
    end
    local first = at_or_after(built, number(md5_bin(key), 1))
    local seen, left = {}, backend.count
    local index = first
    while left > 0 do
        local endpoint = built.owners[index]
        if not seen[endpoint] then
            if not skip(endpoint) then
                return endpoint
            end
            seen[endpoint], left = true, left - 1
        end
        index = (index + 1) % built.count
    end
    return built.owners[first]
end

return ring
