#!/bin/sh
# Whether HAProxy answers, asked at the door that is the service's too. The probe of HAProxy's container.
#
#     haproxy-answers            HAProxy answers
#     haproxy-answers --or-waits HAProxy answers, or has no configuration yet: a restart would not bring it any sooner
state=${SEAWAY_STATE:-/run/seaway/haproxy}
sockets=${SEAWAY_SOCKETS:-/run/seaway/haproxy}
if [ "${1:-}" = --or-waits ] && [ ! -f "$state/haproxy.cfg" ]; then
    exit 0
fi
printf 'show info\n' | nc -U -N -w 3 "$sockets/admin.sock" | grep -q '^Stopping: 0'
