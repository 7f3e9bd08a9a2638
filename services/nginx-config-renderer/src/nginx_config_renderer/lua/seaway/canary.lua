-- Which backend of a route a request goes to, where there are canaries: the first that a header or a cookie sends it to, else by shares.
-- A canary without endpoints takes no requests.

local backends = require("seaway.backends")
local sticky = require("seaway.sticky")

local var, random, lower = ngx.var, math.random, string.lower

local canary = {}

local function variable(header)
    return "http_" .. lower(header):gsub("-", "_")
end

-- Makes a canary of what the table holds; `target` is what a request that goes to it carries.
function canary.decode(data, target)
    return {
        target = target,
        header = data.h and variable(data.h),
        value = data.v,
        pattern = data.re,
        cookie = data.c and "cookie_" .. data.c,
        share = data.w and data.w / data.of or 0,
    }
end

local function always(value)
    if value == "always" then
        return true
    end
    if value == "never" then
        return false
    end
    return nil
end

local function by_header(one)
    local value = one.header and var[one.header]
    if value == nil then
        return nil
    end
    if one.value then
        return value == one.value or nil
    end
    if one.pattern then
        local found, _, reason = ngx.re.find(value, one.pattern, "jo")
        if reason then
            ngx.log(ngx.WARN, "canary ", one.target.text, ": its pattern cannot be used: ", reason)
        end
        return found ~= nil or nil
    end
    return always(value)
end

-- True, false, or nil if the request says nothing.
local function asked(one)
    local wish = by_header(one)
    if wish == nil and one.cookie then
        wish = always(var[one.cookie])
    end
    return wish
end

local function able(one)
    local backend = backends.get(one.target.backend)
    return backend ~= nil and backend.count > 0
end

-- Whether a canary has endpoints, and what the request says of it.
function canary.look(one)
    return able(one), asked(one)
end

local function by_cookie(main, canaries, policy)
    local names, targets = { main.backend }, { [main.backend] = main }
    for _, one in ipairs(canaries) do
        if able(one) then
            names[#names + 1], targets[one.target.backend] = one.target.backend, one.target
        end
    end
    return targets[sticky.meant(policy, names)]
end

-- The target of this request. `policy` is that of the main one.
function canary.choose(main, canaries, policy)
    if policy and policy.sticky and policy.sticky.canary then
        local target = by_cookie(main, canaries, policy)
        if target ~= nil then
            return target
        end
    end
    local draw = random()
    local chosen
    for _, one in ipairs(canaries) do
        if able(one) then
            local wish = asked(one)
            if wish then
                return one.target
            end
            if wish == nil and chosen == nil then
                chosen = draw < one.share and one.target or nil
                draw = draw - one.share
            end
        end
    end
    return chosen or main
end

return canary
