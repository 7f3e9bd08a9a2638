-- What a worker has decoded of one table.
--
-- When the generation has moved, an entry is compared with its text in shared memory at its next use, and decoded again only if that
-- changed; so a push costs a worker what it uses, and memory for no more than that. Keys that do not exist are not remembered: there is
-- no end to them.

local cache = {}

-- `decode` makes a table of a text and its key; the text must stand in its field `text`. Returns a lookup by key, and a function that must be told the
-- generation before the first lookup of a request.
function cache.new(dict, decode)
    local generation, current, old = -1, {}, {}

    local function get(key)
        local entry = current[key]
        if entry ~= nil then
            return entry
        end
        local text = dict:get(key)
        if text == nil then
            return nil
        end
        entry = old[key]
        if entry == nil or entry.text ~= text then
            entry = decode(text, key)
        end
        current[key] = entry
        return entry
    end

    local function refresh(now)
        if now ~= generation then
            generation, old, current = now, current, {}
        end
    end

    return get, refresh
end

return cache
