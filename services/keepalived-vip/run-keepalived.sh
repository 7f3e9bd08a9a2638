#!/bin/sh
# Keeps keepalived running. The first process of keepalived's container.
#
# It waits for the configuration that the service writes, and starts keepalived again when it ends, sooner than a container could be. TERM
# ends keepalived in order: it tells the other nodes, and gives its addresses up.
#
# Without BFD (-B), for which keepalived 2.3 wants a file in a place that is not ours, or says that it is running already.
set -u

run=${SEAWAY_RUN:-/run/seaway/vip}
settled=10 # seconds after which a keepalived that ends is started again without a pause
keepalived=
ending=

say() { echo "run-keepalived: $*" >&2; }
alive() { kill -0 "$keepalived" 2>/dev/null; }

# A signal ends `wait`, so nothing here is ever waited for in another way.
pause() {
    sleep "$1" &
    wait $!
}

trap 'ending=yes' TERM INT QUIT

[ -f "$run/keepalived.conf" ] || say "waiting for $run/keepalived.conf, which the service writes"
until [ -f "$run/keepalived.conf" ] || [ -n "$ending" ]; do
    pause 0.2
done

while [ -z "$ending" ]; do
    rm -f "$run/keepalived.pid" "$run/vrrp.pid" # of one that was killed; a new one would not start where such a process is
    began=$(date +%s)
    # Before other programs, where that is permitted: see keepalived.py.
    sh -c 'chrt --rr --pid 1 $$ 2>/dev/null; exec keepalived "$@"' sh -n -l -P -B -f "$run/keepalived.conf" -p "$run/keepalived.pid" -r "$run/vrrp.pid" &
    keepalived=$!
    while [ -z "$ending" ] && alive; do
        wait "$keepalived"
        code=$?
    done
    [ -z "$ending" ] || break
    say "keepalived ended with $code"
    [ $(($(date +%s) - began)) -ge $settled ] || pause 0.1
done

if [ -n "$keepalived" ]; then
    kill -TERM "$keepalived" 2>/dev/null
    while alive; do
        wait "$keepalived"
    done
fi
say "stopped"
