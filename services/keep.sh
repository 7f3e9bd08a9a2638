#!/bin/sh
# Keeps a program running: the first process of its container.
#
#     keep FILE
#
# FILE says which program, and is read by this shell:
#
#     program         what it is called
#     configuration   the file that its service writes
#     rest            seconds before it is started again, if it has not run for long
#     start           runs it; in a shell of its own, whose place it takes
#     finish          has it finish what it has begun, and waits for its end; it is process $kept
#
# It waits for the configuration, and starts the program again when it ends, sooner than a container could be. A signal has it finish.
set -u

settled=10 # seconds after which a program that ends is started again without a rest
kept=
ending=

say() { echo "keep $program: $*" >&2; }
alive() { kill -0 "$kept" 2>/dev/null; }

# A signal ends `wait`, so nothing here is ever waited for in another way.
pause() {
    sleep "$1" &
    wait $!
}

until_gone() {
    while alive; do
        wait "$kept"
    done
}

# shellcheck source=/dev/null
. "$1"

trap 'ending=yes' TERM INT QUIT

[ -f "$configuration" ] || say "waiting for $configuration, which its service writes"
until [ -f "$configuration" ] || [ -n "$ending" ]; do
    pause 0.2
done

while [ -z "$ending" ]; do
    began=$(date +%s)
    start &
    kept=$!
    while [ -z "$ending" ] && alive; do
        wait "$kept"
        code=$?
    done
    [ -z "$ending" ] || break
    say "it ended with $code"
    [ $(($(date +%s) - began)) -ge $settled ] || pause "$rest"
done

if [ -n "$kept" ] && alive; then
    finish
fi
say "stopped"
