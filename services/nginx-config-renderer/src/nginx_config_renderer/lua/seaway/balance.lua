-- Which endpoint of its backend a request is sent to. choose() runs once a try, and once more when the request is over where it must learn
-- from it.

local backends = require("seaway.backends")
local balancer = require("ngx.balancer")
local health = require("seaway.health")
local policies = require("seaway.policies")
local ring = require("seaway.ring")
local sticky = require("seaway.sticky")
local targets = require("seaway.targets")

local find, gmatch = string.find, string.gmatch
local random, exp = math.random, math.exp
local var = ngx.var

local USUAL_TRIES = 3
local BUSY = -3 -- NGX_BUSY: the request ends with 502, without another try
local DECAY = 10 -- seconds in which what was measured loses two thirds of its weight

local balance = {}

-- Whether this try may not go to an endpoint: it was tried before, or it rests.
local function skipper(backend, tried, known)
    local now = ngx.now()
    return function(endpoint)
        return tried ~= nil and find(tried, endpoint.name, 1, true) ~= nil
            or known ~= nil and health.ejected(known[endpoint.name], now)
    end
end

local function in_turn(backend)
    local turn = backend.turn % backend.count + 1
    backend.turn = turn
    return backend.endpoints[turn]
end

local function next_but(backend, skip)
    for _ = 1, backend.count do
        local endpoint = in_turn(backend)
        if not skip(endpoint) then
            return endpoint
        end
    end
    return in_turn(backend)
end

-- Of two endpoints at random the better one: nearly as good as the best of all, and they do not all run to the same one
-- (Mitzenmacher, The Power of Two Choices, 2001).
local function better(backend, skip, score)
    local left = {}
    for _, endpoint in ipairs(backend.endpoints) do
        if not skip(endpoint) then
            left[#left + 1] = endpoint
        end
    end
    if #left < 2 then
        return left[1] or in_turn(backend)
    end
    local at = random(#left)
    local one = left[at]
    local other = left[(at - 1 + random(#left - 1)) % #left + 1]
    local known = backends.known(backend) or {}
    return score(known[other.name]) < score(known[one.name]) and other or one
end

local function least_busy(backend, skip)
    local known = backends.known(backend) or {}
    local best, least
    in_turn(backend)
    local first = backend.turn -- so that equals take turns
    for offset = 0, backend.count - 1 do
        local endpoint = backend.endpoints[(first - 1 + offset) % backend.count + 1]
        local busy = known[endpoint.name] and known[endpoint.name].busy or 0
        if not skip(endpoint) and (least == nil or busy < least) then
            best, least = endpoint, busy
        end
    end
    best = best or in_turn(backend)
    local facts = backends.learn(backend, best.name)
    facts.busy = facts.busy + 1
    return best
end

local function took(facts)
    if facts == nil or facts.took == nil then
        return 0 -- one of which nothing is known is tried
    end
    return facts.took * exp((facts.at - ngx.now()) / DECAY)
end

local function hash_key(parts)
    local key = ""
    for _, part in ipairs(parts) do
        key = key .. (part.text or var[part.name] or "")
    end
    return key
end

local function pick(backend, policy, tried, known)
    if policy == nil or not (policy.hash or policy.sticky or policy.balance) then
        return tried == nil and known == nil and in_turn(backend) or next_but(backend, skipper(backend, tried, known))
    end
    local skip = skipper(backend, tried, known)
    if policy.sticky then
        return sticky.pick(backend, policy, skip, tried ~= nil)
    end
    if policy.hash then
        return ring.find(backend, hash_key(policy.hash), skip)
    end
    if policy.balance == "least_conn" then
        return least_busy(backend, skip)
    end
    return better(backend, skip, took)
end

local function tries(backend, policy)
    local retry = policy and policy.retry
    local most = retry and retry.tries or USUAL_TRIES
    if retry and next(retry.on) == nil then
        return 1
    end
    return most > 0 and most < backend.count and most or backend.count
end

-- Whether a failed try leads to another one. nginx has asked its configuration already; this is what it does not know.
local function allowed(policy, status)
    local retry = policy and policy.retry
    if retry == nil then
        return true
    end
    local wanted = retry.on.status or (status == 504 and retry.on.timeout) or (status ~= 504 and retry.on.error)
    local spent = retry.within > 0 and ngx.now() - ngx.req.start_time() >= retry.within
    return wanted and not spent
end

-- What nginx lists for each try: "10.0.0.1:80, 10.0.0.2:80 : " before the third is chosen.
local function each(list)
    local found = {}
    for one in gmatch(list or "", "[^, ]+") do
        if one ~= ":" then
            found[#found + 1] = one
        end
    end
    return found
end

-- The endpoint that was tried last, and the seconds until it began to answer. Nil where it was none, or did not.
local function last_try(tried)
    local names = each(tried)
    local count = #names
    return names[count], count > 0 and tonumber(each(var.upstream_header_time)[count]) or nil
end

local function again(backend, policy)
    local tried = var.upstream_addr or ""
    local _, status = balancer.get_last_failure()
    local last, header_time = last_try(tried)
    if last and header_time == nil then
        health.failed(backend, last)
    end
    return tried, allowed(policy, status)
end

function balance.choose()
    local target = targets.of_request()
    local backend = backends.get(target.backend)
    if backend == nil or backend.count == 0 then
        return ngx.exit(ngx.ERROR) -- the last endpoint went away since the route was chosen
    end
    local policy = policies.of(target)
    local tried
    if balancer.get_last_failure() ~= nil then
        local more
        tried, more = again(backend, policy)
        if not more then
            return ngx.exit(BUSY)
        end
    else
        local most = tries(backend, policy)
        if most > 1 then
            balancer.set_more_tries(most - 1)
        end
    end
    local endpoint = pick(backend, policy, tried, backends.known(backend))
    if policy and policy.timeouts then
        balancer.set_timeouts(policy.connect, policy.send, policy.read)
    end
    local done, reason = balancer.set_current_peer(endpoint[1], endpoint[2])
    if not done then
        ngx.log(ngx.ERR, "cannot use endpoint ", endpoint.name, ": ", reason)
        return ngx.exit(ngx.ERROR)
    end
end

local function measured(backend, name, seconds)
    local facts = backends.learn(backend, name)
    local now = ngx.now()
    local weight = facts.at and exp((facts.at - now) / DECAY) or 0
    facts.took, facts.at = (facts.took or 0) * weight + seconds * (1 - weight), now
end

local function let_go(backend, list)
    local known = backends.known(backend) or {}
    for name in gmatch(list or "", "[^, ]+") do
        local facts = known[name]
        if facts and facts.busy > 0 then
            facts.busy = facts.busy - 1
            backends.forget(backend, name)
        end
    end
end

-- What a request that is over tells about the endpoint that had it last. Returns how many were tried, and the seconds until the last one
-- began to answer, which is nil if it did not.
function balance.learn(backend, policy, status)
    local times = var.upstream_header_time
    if times == nil then
        return 0
    end
    local header_time = tonumber(times)
    if header_time ~= nil and status < 500 and not (policy and policy.balance) and backends.known(backend) == nil then
        return 1, header_time -- which is nearly always, and costs little
    end
    local tried = var.upstream_addr or ""
    local names = each(tried)
    local tries = #names
    local last = names[tries]
    header_time = header_time or tonumber(each(times)[tries])
    if status < 500 and not (policy and policy.balance) and backends.known(backend) == nil then
        return tries, header_time
    end
    if header_time ~= nil then
        health.answered(backend, last)
    elseif status >= 500 then
        health.failed(backend, last)
    end
    local method = policy and policy.balance
    if method == "least_conn" then
        let_go(backend, tried)
    elseif method == "ewma" and header_time then
        measured(backend, last, header_time)
    end
    return tries, header_time
end

return balance
