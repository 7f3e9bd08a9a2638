#!/usr/libexec/seaway/sh
# Keeps nginx running. The first process of nginx's container.
#
# It waits for the configuration that the renderer writes, and starts nginx again when nginx ends, sooner than a container could be: a node
# without nginx answers nobody.
#
# TERM closes the door by which others see that nginx is there: probes fail, and whoever leads clients here leads them elsewhere. Clients that
# still come are answered for SEAWAY_GRACE seconds; then nginx takes no more and finishes what it has begun (QUIT). How long that may take,
# its configuration (worker-shutdown-timeout) and the runtime's grace period say.
#
# The shell above is the system's, with the capability for ports below 1024. See the Dockerfile.
set -u

state=${SEAWAY_STATE:-/run/seaway/nginx}
grace=${SEAWAY_GRACE:-5}
settled=10 # seconds after which an nginx that ends is started again without a pause
nginx=
ending=

say() { echo "run-nginx: $*" >&2; }
alive() { kill -0 "$nginx" 2>/dev/null; }

# A signal ends `wait`, so nothing here is ever waited for in another way.
pause() {
    sleep "$1" &
    wait $!
}

trap 'ending=yes' TERM INT QUIT

[ -f "$state/nginx.conf" ] || say "waiting for $state/nginx.conf, which the renderer writes"
until [ -f "$state/nginx.conf" ] || [ -n "$ending" ]; do
    pause 0.2
done

while [ -z "$ending" ]; do
    rm -f "$state"/run/*.sock # of an nginx that was killed; a new one cannot listen where it is
    began=$(date +%s)
    nginx -e stderr -p "$state/run" -c "$state/nginx.conf" -g 'daemon off;' &
    nginx=$!
    while [ -z "$ending" ] && alive; do
        wait "$nginx"
        code=$?
    done
    [ -z "$ending" ] || break
    say "nginx ended with $code"
    [ $(($(date +%s) - began)) -ge $settled ] || pause 0.5
done

if [ -n "$nginx" ] && alive; then
    rm -f "$state/run/admin.sock"
    pause "$grace"
fi
# Said more than once, because a starting nginx does not hear yet.
while [ -n "$nginx" ] && kill -QUIT "$nginx" 2>/dev/null; do
    pause 0.2
done
say "stopped"
