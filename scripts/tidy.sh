#!/usr/bin/env bash
# Holds the tree against the rules of docs/style.md that a machine can see. Prints each breach; status 1 if there is one.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8

status=0
swift format lint --strict --parallel --recursive Sources Tests || status=1
targets=$(swift package dump-package)
python3 scripts/testing/tidy.py <<<"$targets" || status=1
[ $status = 0 ] && echo "tidy.sh: nothing to say"
exit $status
