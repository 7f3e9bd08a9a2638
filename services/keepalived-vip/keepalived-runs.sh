#!/bin/sh
# Whether keepalived runs. The probe of its container; whether it holds what it should, the service knows.
#
#     keepalived-runs            keepalived runs
#     keepalived-runs --or-waits keepalived runs, or has no configuration yet: a restart would not bring it any sooner
run=${SEAWAY_RUN:-/run/seaway/vip}
if [ "${1:-}" = --or-waits ] && [ ! -f "$run/keepalived.conf" ]; then
    exit 0
fi
[ -f "$run/keepalived.pid" ] && grep -qx keepalived "/proc/$(cat "$run/keepalived.pid")/comm"
