-- Passive ejection: an endpoint that failed several times in a row gets no requests for a while.
--
-- A failure is a try that brought no answer at all: a refused or broken connection, or silence. An answer, whatever its status, ends the
-- row. The last endpoint that is left is never ejected: a bad one may still answer, and nothing else would.

local backends = require("seaway.backends")
local counts = require("seaway.counts")

local health = { max_fails = 3, pause = 10 }

function health.ejected(facts, now)
    return facts ~= nil and facts.until_ ~= nil and facts.until_ > now
end

local function left(backend, now)
    local known = backends.known(backend)
    local count = backend.count
    for _, facts in pairs(known or {}) do
        if health.ejected(facts, now) then
            count = count - 1
        end
    end
    return count
end

function health.failed(backend, name)
    if health.max_fails == 0 or backend.count < 2 then
        return
    end
    local facts = backends.learn(backend, name)
    facts.fails = facts.fails + 1
    local now = ngx.now()
    if facts.fails >= health.max_fails and not health.ejected(facts, now) and left(backend, now) > 1 then
        facts.until_ = now + health.pause
        counts.ejection(backend.key)
        ngx.log(ngx.WARN, "endpoint ", name, " of ", backend.key, " failed ", facts.fails, " times and rests for ", health.pause, " s")
    end
end

function health.answered(backend, name)
    local known = backends.known(backend)
    local facts = known and known[name]
    if facts ~= nil and facts.fails > 0 then
        facts.fails, facts.until_ = 0, nil
        backends.forget(backend, name)
    end
end

return health
