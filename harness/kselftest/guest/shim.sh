#!/bin/sh
# SPDX-License-Identifier: MIT
# Stands in for every program of a collection while the collection's own script runs: the one whose turn it is runs,
# the others are skipped. So each gets the arguments and the surroundings that its script gives it, in a fresh kernel.
# Only built-in commands are used, for the script calls it some sixty times.
name=${0##*/}
read -r place wanted < /tmp/kselftest/order
[ -z "$HGM_INSIDE" ] || exec "$place/$name" "$@"
read -r turn < /tmp/kselftest/turn
turn=$((turn + 1))
echo "$turn" > /tmp/kselftest/turn
if [ "$wanted" = 0 ]; then
    echo "$name${*:+ $*}" >> /tmp/kselftest/list
    exit 4
fi
[ "$turn" = "$wanted" ] || exit 4
echo "hgm-kselftest: begin $name${*:+ $*}"
HGM_INSIDE=1 "$place/$name" "$@"
status=$?
echo "hgm-kselftest: end $status"
: > /tmp/kselftest/ended
exit "$status"
