#!/usr/bin/env bash
# Measures what kedge costs and prints each figure beside its target (docs/performance.md says how to read them).
#   bench.sh            start-up and archive-push against the pure codec; backup and restore of a 2 GB cluster and of one
#                       with 100,000 relations. Six to ten minutes and 12 GB below $TMPDIR (default /tmp).
#   bench.sh --quick    start-up and archive-push only: about a minute
#   bench.sh --json     the figures as one JSON document on standard output, the rest on standard error
# Other options go to testing/bench.py, which does the measuring (--help lists them).
# Exit status: 0 when it ran, whatever the figures are: a busy machine must not fail anything.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-dependencies.sh >&2
bin=$(scripts/testing/install-postgres.sh 15 | cut -f2)
scripts/build.sh --bench | grep -vE '^\[[0-9]+/[0-9]+\]' >&2

# PostgreSQL refuses to run as root, and the checkout may be out of reach of the user that owns the servers.
if [ "$(id -u)" = 0 ]; then as_postgres=(runuser -u postgres --); else as_postgres=(); fi
scratch=${TMPDIR:-/tmp}
dir=$("${as_postgres[@]}" mktemp -d "$scratch/kedge-bench.XXXXXX")
cleanup() {
    status=$?
    for pid in "$dir"/*/postmaster.pid; do
        [ ! -f "$pid" ] || "${as_postgres[@]}" "$bin/pg_ctl" -D "$(dirname "$pid")" -m immediate -s stop || true
    done
    rm -rf "$dir"
    exit "$status"
}
trap cleanup EXIT
install -m 755 build/kedge build/codec-only scripts/testing/bench.py "$dir/"
(cd "$dir" && "${as_postgres[@]}" python3 "$dir/bench.py" --directory "$dir" --postgres "$bin" "$@")
