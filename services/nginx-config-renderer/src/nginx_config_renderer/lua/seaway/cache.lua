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

    -- LuaJIT compiles what it watches being done. Had it come upon a decoding, each lookup would leave its machine code where that begins; so it
    -- gives up there, and watches another one.
    jit.off(decode)

    local function look_up(key)
        local text = dict:get(key)
        if text == nil then
            return nil
        end
        local entry = old[key]
        if entry == nil or entry.text ~= text then
            entry = decode(text, key)
        end
        current[key] = entry
        return entry
    end

    local function get(key)
        return current[key] or look_up(key)
    end

    local function refresh(now)
        if now ~= generation then
            generation, old, current = now, current, {}
        end
    end

    return get, refresh
end

return cache
