-- A worker ends with its master. nginx's own workers would outlive a master that was killed and hold its ports, so that no new one
-- could start. The kernel tells us (prctl(2), PR_SET_PDEATHSIG): we take no new connections and finish what we have.

local ffi = require("ffi")
local counts = require("seaway.counts")
local tables = require("seaway.tables")

ffi.cdef([[
int prctl(int option, unsigned long arg2, unsigned long arg3, unsigned long arg4, unsigned long arg5);
int getppid(void);
int getpid(void);
int kill(int pid, int sig);
]])

local PR_SET_PDEATHSIG, SIGQUIT = 1, 3

local worker = {}

function worker.init()
    math.randomseed(ngx.worker.pid() + ngx.now() * 1000)
    ffi.C.prctl(PR_SET_PDEATHSIG, SIGQUIT, 0, 0, 0)
    if ffi.C.getppid() ~= tables.master then
        ffi.C.kill(ffi.C.getpid(), SIGQUIT) -- it was gone before we asked
    end
    counts.init_worker()
end

return worker
