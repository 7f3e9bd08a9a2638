# HAProxy, as its container keeps it (keep.sh).
#
# TERM lets HAProxy finish what it has begun (USR1), after a moment in which the node's floating addresses go elsewhere; how long that may
# take, the runtime's grace period says.

state=${SEAWAY_STATE:-/run/seaway/haproxy}
sockets=${SEAWAY_SOCKETS:-/run/seaway/haproxy}
lead=2 # seconds in which it still takes connections, since clients do not know yet

program=haproxy
configuration=$state/haproxy.cfg
rest=0.5

start() {
    exec haproxy -W -S "$sockets/master.sock,mode,600" -f "$state/haproxy.cfg"
}

finish() {
    pause $lead
    kill -USR1 "$kept" 2>/dev/null
    until_gone
}
