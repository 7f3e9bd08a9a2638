#!/bin/sh
# Keeps HAProxy running. The first process of HAProxy's container.
#
# It waits for the configuration that the service writes, and starts HAProxy again when it ends, sooner than a container could be. TERM lets
# HAProxy finish what it has begun (USR1), after a moment in which the node's floating addresses go elsewhere; how long that may take, the
# runtime's grace period says.
set -u

state=${SEAWAY_STATE:-/run/seaway/haproxy}
sockets=${SEAWAY_SOCKETS:-/run/seaway/haproxy}
lead=2     # seconds in which it still takes connections, since clients do not know yet
settled=10 # seconds after which a HAProxy that ends is started again without a pause
haproxy=
ending=

say() { echo "run-haproxy: $*" >&2; }
alive() { kill -0 "$haproxy" 2>/dev/null; }

# A signal ends `wait`, so nothing here is ever waited for in another way.
pause() {
    sleep "$1" &
    wait $!
}

trap 'ending=yes' TERM INT QUIT

[ -f "$state/haproxy.cfg" ] || say "waiting for $state/haproxy.cfg, which the service writes"
until [ -f "$state/haproxy.cfg" ] || [ -n "$ending" ]; do
    pause 0.2
done

while [ -z "$ending" ]; do
    began=$(date +%s)
    haproxy -W -S "$sockets/master.sock,mode,600" -f "$state/haproxy.cfg" &
    haproxy=$!
    while [ -z "$ending" ] && alive; do
        wait "$haproxy"
        code=$?
    done
    [ -z "$ending" ] || break
    say "HAProxy ended with $code"
    [ $(($(date +%s) - began)) -ge $settled ] || pause 0.5
done

if [ -n "$haproxy" ] && alive; then
    pause $lead
    kill -USR1 "$haproxy" 2>/dev/null
    while alive; do
        wait "$haproxy"
    done
fi
say "stopped"
