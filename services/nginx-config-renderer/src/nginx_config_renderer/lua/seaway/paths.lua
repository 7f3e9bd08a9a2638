-- The path of a request, as routes are written: decoded and normalised, but for the slash that is written %2F, which separates nothing.
--
-- nginx's own $uri has that decoded too, so it is used where there is none. derive/paths.py does the same with what users write.
--
-- It is taken from the first line of the request, since that also tells whether the whole address stands there, with the host.

local byte, char, find, gsub, match, sub = string.byte, string.char, string.find, string.gsub, string.match, string.sub
local concat, tonumber = table.concat, tonumber
local var = ngx.var

local SLASH = 47

local paths = {}

local function decode(digits)
    local code = tonumber(digits, 16)
    return code == SLASH and "%2F" or char(code)
end

local function is_dots(element)
    return element == "." or element == ".."
end

-- Whether somebody who decodes more than we do would come to another place: dots beside a slash that is written %2F.
local function deceives(element)
    for part in (gsub(element, "%%2F", "/") .. "/"):gmatch("([^/]*)/") do
        if is_dots(part) then
            return true
        end
    end
    return false
end

local function normalise(path)
    path = gsub(path, "#.*$", "")
    path = gsub(path, "%%25(2[fF])", "%%2525%1") -- what stands for "%2F" itself is no slash
    path = gsub(path, "%%(%x%x)", decode)
    local kept, count = {}, 0
    local last
    for element in path:gmatch("[^/]+") do
        last = element
        if element == ".." then
            count = count > 0 and count - 1 or 0
        elseif element ~= "." then
            if find(element, "%2F", 1, true) and deceives(element) then
                return nil
            end
            count = count + 1
            kept[count] = element
        end
    end
    local final = count > 0 and (byte(path, #path) == SLASH or is_dots(last)) and "/" or ""
    return "/" .. concat(kept, "/", 1, count) .. final
end

-- What stands before a query in what is asked for: "/a" of "GET /a?b HTTP/1.1". Nil if it is no path.
local function written(line)
    local from = find(line, " /", 1, true)
    if from == nil then
        return nil
    end
    local query = find(line, "?", from, true)
    local last = query or find(line, " ", from + 1, true) -- which HTTP/0.9 has not
    return sub(line, from + 1, last and last - 1)
end

-- The path of the request, which is nil if it is meant to deceive, and the host that its first line names, if it does.
function paths.of_request()
    local line = var.request
    local path = written(line)
    local host
    if path == nil then
        host = match(line, "^%S+ +[hH][tT][tT][pP][sS]?://([^/?# ]+)")
        path = gsub(var.request_uri, "%?.*$", "")
    end
    if not find(path, "%", 1, true) then
        if find(path, "//", 1, true) or find(path, "/.", 1, true) or find(path, "#", 1, true) then
            return var.uri, host
        end
        return path, host -- which is nearly always
    end
    if find(path, "%%2[fF]") or find(path, "%%252[fF]") then
        return normalise(path), host
    end
    return var.uri, host
end

return paths
