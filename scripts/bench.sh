#!/usr/bin/env bash
# Holds kedge against pgBackRest on the same cluster, in turns, and prints medians, ratios and their spread
# (docs/performance.md says how to read them).
#   bench.sh            2 GB, every case, several codecs: about 25 minutes, and 20 GB below $TMPDIR (default /tmp)
#   bench.sh --quick    less of everything: some minutes (six on a busy machine of two cores)
#   bench.sh --smoke    hardly anything, with every variant: shows that it works
#   bench.sh --instructions   counts instructions with callgrind instead, of 60 MB: minutes, on a busy machine too
#   bench.sh --json     the figures as one JSON document on standard output, the rest on standard error
#   bench.sh --pgbackrest PATH   another pgBackRest than Debian's; "none" leaves it out
# Other options go to testing/bench, which does the measuring (--help lists them).
# Exit status: 0 when it ran, whatever the figures are: a busy machine must not fail anything.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-dependencies.sh >&2
bin=$(scripts/testing/install-postgres.sh 15 | cut -f2)
scripts/build.sh --bench | grep -vE '^\[[0-9]+/[0-9]+\]' >&2

add_package() { # add_package PACKAGE HINT
    echo "bench.sh: installing $1" >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >&2 || {
        echo "bench.sh: could not install it: $2" >&2
        exit 1
    }
}
case " $* " in
*" --instructions"*) command -v valgrind >/dev/null || add_package valgrind "nothing else counts instructions" ;;
esac
given=()
case " $* " in
*" --pgbackrest"*) ;;
*)
    command -v pgbackrest >/dev/null || add_package pgbackrest "give one with --pgbackrest PATH, or --pgbackrest none"
    given=(--pgbackrest "$(command -v pgbackrest)")
    ;;
esac

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
install -m 755 build/kedge build/codec-only "$dir/"
install -d -m 755 "$dir/program"
install -m 644 scripts/testing/bench/*.py "$dir/program/"
(cd "$dir" && "${as_postgres[@]}" env PYTHONDONTWRITEBYTECODE=1 python3 "$dir/program" \
    --directory "$dir" --postgres "$bin" "${given[@]}" "$@")
