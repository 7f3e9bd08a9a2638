#!/bin/sh
# Whether nginx answers, asked at the door that is the renderer's too. The probe of nginx's container.
#
#     nginx-answers            nginx answers
#     nginx-answers --or-waits nginx answers, or has no configuration yet: a restart would not bring it any sooner
state=${SEAWAY_STATE:-/run/seaway/nginx}
if [ "${1:-}" = --or-waits ] && [ ! -f "$state/nginx.conf" ]; then
    exit 0
fi
printf 'GET /status HTTP/1.0\r\n\r\n' | nc -U -N -w 3 "$state/run/admin.sock" | grep -q '^HTTP/1.1 200 '
