#!/usr/bin/env bash
# Holds the tree against the rules of docs/style.md that a machine can see. Prints each breach; status 1 if there is one.
#   tidy.sh --fix    first repairs what a machine can: white space, and comments that are too wide
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8

case "${1:-}" in
"") ;;
--fix)
    swift format --in-place --parallel --recursive Sources Tests Benchmarks
    python3 scripts/testing/tidy.py --fix
    ;;
*) echo "usage: tidy.sh [--fix]" >&2 && exit 2 ;;
esac

status=0
swift format lint --strict --parallel --recursive Sources Tests Benchmarks || status=1
targets=$(swift package dump-package)
python3 scripts/testing/tidy.py <<<"$targets" || status=1
python3 scripts/testing/lessons.py || status=1
[ $status = 0 ] && echo "tidy.sh: nothing to say"
exit $status
