#!/bin/sh
# SPDX-License-Identifier: MIT
# ./hgm in a guest of ./hgm shell: what looks at processes from there.
case "$1" in
shape)
	shift
	exec env PYTHONPYCACHEPREFIX=/run/pycache python3 -S "$(dirname "$0")/lib/shape.py" "$@"
	;;
*)
	echo "usage: ./hgm shape --pid PID" >&2
	exit 2
	;;
esac
