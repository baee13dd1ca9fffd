#!/bin/sh
# Runs youki's contest against virtc. Its programs are not part of this project: CONTEST names the
# directory with `contest` and `runtimetest`. VIRTC is the runtime.
set -eu

if [ -z "${CONTEST:-}" ]; then
    echo 'conformance: skipped: CONTEST=DIR has to name a directory with youki'"'"'s contest and runtimetest'
    exit 0
fi
for program in contest runtimetest; do
    if [ ! -x "$CONTEST/$program" ]; then
        echo "conformance: $CONTEST/$program is no program" >&2
        exit 1
    fi
done
exec "$CONTEST/contest" run --runtime "${VIRTC:?the runtime}" --runtimetest "$CONTEST/runtimetest"
