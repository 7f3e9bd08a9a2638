-- The path of a request, as routes are written: decoded and normalised, but for the slash that is written %2F, which separates nothing.
--
-- nginx's own $uri has that decoded too, so it is used where there is none. derive/paths.py does the same with what users write.

local byte, char, find, gsub, sub = string.byte, string.char, string.find, string.gsub, string.sub
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

-- Nil if the path is meant to deceive.
function paths.of_request()
    local path = var.request_uri
    local query = find(path, "?", 1, true)
    if query ~= nil then
        path = sub(path, 1, query - 1)
    end
    if not find(path, "%", 1, true) then
        if find(path, "//", 1, true) or find(path, "/.", 1, true) or find(path, "#", 1, true) then
            return var.uri
        end
        return path -- which is nearly always
    end
    if find(path, "%%2[fF]") or find(path, "%%252[fF]") then
        return normalise(path)
    end
    return var.uri
end

return paths
