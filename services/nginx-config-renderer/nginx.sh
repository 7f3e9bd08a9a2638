# nginx, as its container keeps it (keep.sh). A node without nginx answers nobody.
#
# TERM closes the door by which others see that nginx is there: probes fail, and whoever leads clients here leads them elsewhere. Clients that
# still come are answered for SEAWAY_GRACE seconds; then nginx takes no more and finishes what it has begun (QUIT). How long that may take,
# its configuration (worker-shutdown-timeout) and the runtime's grace period say.

state=${SEAWAY_STATE:-/run/seaway/nginx}
grace=${SEAWAY_GRACE:-5}

program=nginx
configuration=$state/nginx.conf
rest=0.5

start() {
    rm -f "$state"/run/*.sock # of an nginx that was killed; a new one cannot listen where it is
    exec nginx -e stderr -p "$state/run" -c "$state/nginx.conf" -g 'daemon off;'
}

finish() {
    # A file in the place of the socket, to which nobody can connect. Nginx takes it away at its end, and would make an emergency of it
    # if nothing were there.
    { touch "$state/run/door" && mv -f "$state/run/door" "$state/run/admin.sock"; } || rm -f "$state/run/admin.sock"
    pause "$grace"
    # Said more than once, because a starting nginx does not hear yet.
    while kill -QUIT "$kept" 2>/dev/null; do
        pause 0.2
    done
}
