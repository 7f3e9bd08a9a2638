# keepalived, as its container keeps it (keep.sh). TERM ends it in order: it tells the other nodes, and gives its addresses up.
#
# Without BFD (-B), for which keepalived 2.3 wants a file in a place that is not ours, or says that it is running already.

run=${SEAWAY_RUN:-/run/seaway/vip}

program=keepalived
configuration=$run/keepalived.conf
rest=0.1

start() {
    rm -f "$run/keepalived.pid" "$run/vrrp.pid" # of one that was killed; a new one would not start where such a process is
    # Before other programs, where that is permitted: see keepalived.py.
    exec sh -c 'chrt --rr --pid 1 $$ 2>/dev/null; exec keepalived "$@"' sh -n -l -P -B -f "$run/keepalived.conf" -p "$run/keepalived.pid" -r "$run/vrrp.pid"
}

finish() {
    kill -TERM "$kept" 2>/dev/null
    until_gone
}
