#!/usr/bin/env bash
# Sets everything up and runs the tests: tidy, quick tier (no servers), server tier (real PostgreSQL
# servers and object stores, the shipped binary).
#   test.sh               all three, PostgreSQL 15, SeaweedFS and rclone: what is run before every merge
#   test.sh --quick       tidy and quick tier only
#   test.sh --soak        PostgreSQL 13 to 18, Ceph as well, the long tests, and ten minutes of fuzzing for each parser (hours;
#                         KEDGE_FUZZ_SECONDS sets another time a parser)
#   test.sh --filter X    only the tests whose names match the regular expression X (and no tidy)
# Works from a fresh clone on a fresh Debian 12 with Swift in PATH; as root it installs what is missing. KEDGE_TEST_SEED repeats
# the random choices of a run. The last line says what ran and how it went; the exit status is 0 only if all passed.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8
# The crash backtracer can hang for ever; the line that trapped is printed without it.
export SWIFT_BACKTRACE=enable=no

tier=default
filter=
while [ $# -gt 0 ]; do
    case $1 in
    --quick) tier=quick ;;
    --soak) tier=soak ;;
    --filter)
        [ $# -gt 1 ] || { echo "test.sh: --filter needs a regular expression" >&2 && exit 2; }
        filter=$2
        shift
        ;;
    *)
        echo "usage: test.sh [--quick | --soak] [--filter X]" >&2
        exit 2
        ;;
    esac
    shift
done

mkdir -p build
began=$SECONDS
summary=
export KEDGE_TEST_SEED=${KEDGE_TEST_SEED:-$(od -An -N7 -tu8 /dev/urandom | tr -d ' ')}
# Everything that tests make lies here, so that a run that is cut short leaves nothing behind.
KEDGE_TEST_DIRECTORY=$(mktemp -d /tmp/kt.XXXXXX)
export KEDGE_TEST_DIRECTORY
chmod 0755 "$KEDGE_TEST_DIRECTORY"

finish() {
    status=$?
    scripts/testing/object-stores.sh stop "$KEDGE_TEST_DIRECTORY/s3" 2>/dev/null || true
    # Servers of tests that were killed: their directory is ours, so they are.
    for file in $(find "$KEDGE_TEST_DIRECTORY" -name postmaster.pid 2>/dev/null); do
        kill -QUIT "$(head -n 1 "$file")" 2>/dev/null || true
    done
    rm -rf "$KEDGE_TEST_DIRECTORY"
    local minutes=$(((SECONDS - began) / 60)) seconds=$(((SECONDS - began) % 60))
    if [ $status = 0 ]; then
        echo "test.sh: passed:${summary} in ${minutes} min ${seconds} s, seed $KEDGE_TEST_SEED"
    else
        echo "test.sh: FAILED after:${summary:- nothing} in ${minutes} min ${seconds} s, seed $KEDGE_TEST_SEED" >&2
    fi
    exit $status
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

step() { echo "== $*"; }

# run_tests NAME ARGUMENT...: one run of the test program; a run in which no test took part is a failure. The whole output goes
# to build/test.log, the suites as they finish and what failed to the terminal.
run_tests() {
    local name=$1 log=build/test.log status=0
    shift
    [ -z "$filter" ] || set -- "$@" --filter "$filter"
    swift test --disable-xctest --skip-build "$@" 2>&1 | tee "$log" | grep --line-buffered -E '^(✔|✘|➜) (Suite|Test run) ' ||
        status=${PIPESTATUS[0]}
    [ "$status" = 0 ] || {
        # A failure's own lines may be many: values are printed as they are. A crash is at the end.
        grep -A 25 -E '^✘ Test .* (recorded|failed)' "$log" | grep -vE '^(✔|◇) ' | head -n 400 || true
        tail -n 15 "$log"
        return 1
    }
    local line passed skipped
    line=$(grep -oE 'Test run with [0-9]+ tests.* passed after [0-9]+' "$log" | tail -n 1)
    passed=$(sed -E 's/Test run with ([0-9]+) tests.*/\1/' <<<"$line")
    skipped=$(grep -cE '^➜ Test .* skipped' "$log" || true)
    [ -n "$passed" ] && [ "$passed" -gt "$skipped" ] || {
        echo "test.sh: no test took part in the $name" >&2
        return 1
    }
    summary+=" $name $((passed - skipped)) tests in ${line##* } s,"
}

echo "seed: KEDGE_TEST_SEED=$KEDGE_TEST_SEED"
step "dependencies"
scripts/install-dependencies.sh
if [ "$tier" != quick ]; then
    versions=(15)
    [ "$tier" != soak ] || versions=(13 14 15 16 17 18)
    servers=$(scripts/testing/install-postgres.sh "${versions[@]}")
    KEDGE_TEST_POSTGRES=$(tr '\t' '=' <<<"$servers")
    export KEDGE_TEST_POSTGRES
    echo "$KEDGE_TEST_POSTGRES"
fi

if [ -z "$filter" ]; then
    step "tidy"
    scripts/tidy.sh
    summary+=" tidy,"
    step "the independent reader"
    # Debian's own Python: another one in PATH would not have the packages.
    /usr/bin/python3 -m unittest discover -s Catalog/testing 2>&1 | tail -n 40
    summary+=" Catalog/reader.py,"
fi

step "build"
swift build --build-tests 2>&1 | grep -vE '^\[[0-9]+/[0-9]+\]' || [ "${PIPESTATUS[0]}" = 0 ]

if [ "$tier" = quick ] || [ -z "$filter" ]; then
    step "quick tier"
    KEDGE_TEST_SERVERS=0 run_tests "quick tier"
fi

if [ "$tier" != quick ]; then
    step "the shipped binary"
    scripts/build.sh 2>&1 | grep -vE '^\[[0-9]+/[0-9]+\]' || [ "${PIPESTATUS[0]}" = 0 ]
    export KEDGE_BINARY=$PWD/build/kedge
    export KEDGE_TEST_SERVERS=1
    [ "$tier" != soak ] || export KEDGE_TEST_SOAK=1
    stores=(seaweedfs rclone)
    [ "$tier" != soak ] || stores+=(ceph)
    step "object stores: ${stores[*]}"
    KEDGE_TEST_S3=$(scripts/testing/object-stores.sh start "$KEDGE_TEST_DIRECTORY/s3" "${stores[@]}")
    export KEDGE_TEST_S3
    step "server tier: PostgreSQL ${versions[*]}"
    skipped=()
    if [ "$tier" = default ] && [ -z "$filter" ]; then
        # Modules and suites that have nothing for servers to do: the quick tier has just run them, and no variable changes what
        # they do.
        needs='serversAreEnabled|KEDGE_TEST_S3|KedgeBinary'
        for module in Tests/*Tests; do
            name=${module#Tests/}
            grep -rqE "$needs" "$module" || {
                skipped+=(--skip "^$name\.")
                continue
            }
            while read -r suite; do
                skipped+=(--skip "^$name\.$suite/")
            done < <(grep -LE "$needs" "$module"/*Tests.swift | xargs -r grep -ohE '(struct|class) \w+Tests\b' | cut -d ' ' -f 2)
        done
    fi
    run_tests "server tier (PostgreSQL ${versions[*]})" "${skipped[@]}"
fi

if [ "$tier" = soak ] && [ -z "$filter" ]; then
    step "fuzzing"
    scripts/fuzz.sh --seconds "${KEDGE_FUZZ_SECONDS:-600}"
    summary+=" fuzzing of ${KEDGE_FUZZ_SECONDS:-600} s a parser,"
fi
summary=${summary%,}
