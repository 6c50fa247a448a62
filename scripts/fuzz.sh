#!/usr/bin/env bash
# Feeds the parsers with hostile bytes: libFuzzer (it comes with the Swift toolchain), guided by coverage.
#   fuzz.sh                      every target, 60 seconds each
#   fuzz.sh TARGET…              only these; fuzz.sh --list names them
#   fuzz.sh --seconds N          so long each
#   fuzz.sh --keep               adds what reached new code to the corpus in Tests/Fuzzing/Corpus, minimised
# The corpus is one file a target, an input a line in hexadecimal. What made a target fail is printed, added to the corpus, and
# left in build/fuzz/failures; mend the parser, and the quick tier keeps it mended. Status 1 if a target failed.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8 KEDGE_FUZZ=1
# The crash backtracer can hang for ever; the line that trapped is printed without it.
export SWIFT_BACKTRACE=enable=no

seconds=60
keep=
targets=()
while [ $# -gt 0 ]; do
    case $1 in
    --seconds)
        seconds=${2:?fuzz.sh: --seconds needs a number}
        shift
        ;;
    --keep) keep=yes ;;
    --list) targets=(--list) ;;
    -*)
        echo "usage: fuzz.sh [--seconds N] [--keep] [--list | TARGET…]" >&2
        exit 2
        ;;
    *) targets+=("$1") ;;
    esac
    shift
done

corpus=Tests/Fuzzing/Corpus
work=build/fuzz
program=.build/fuzz/release/kedge-fuzz
mkdir -p $work/failures
swift build -c release --sanitize=fuzzer --scratch-path .build/fuzz --product kedge-fuzz >$work/build.log 2>&1 ||
    { grep -A 4 'error:' $work/build.log >&2 && exit 1; }
all=$(KEDGE_FUZZ_TARGET=--list $program -runs=0 2>/dev/null || true)
if [ "${targets[*]-}" = --list ]; then
    echo "$all" | cut -d ' ' -f 1
    exit 0
fi
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(echo "$all" | cut -d ' ' -f 1)

# Inputs from standard input, one a line in hexadecimal, one file each in a directory.
unpack() {
    mkdir -p "$1"
    python3 -c '
import hashlib, pathlib, sys
for line in sys.stdin:
    data = bytes.fromhex(line.strip())
    pathlib.Path(sys.argv[1], hashlib.sha1(data).hexdigest()).write_bytes(data)' "$1"
}

# The other way round: shortest first, at most 8 KiB of input; what is in the corpus already stays.
pack() {
    python3 - "$1" "$2" <<'PYTHON'
import os, pathlib, sys
old = open(sys.argv[2]).read().split("\n")[:-1] if os.path.exists(sys.argv[2]) else []
kept, size = list(old), sum(len(line) for line in old) // 2
for data in sorted((path.read_bytes() for path in pathlib.Path(sys.argv[1]).iterdir()), key=lambda data: (len(data), data)):
    if data.hex() not in kept and size + len(data) <= 8192:
        kept.append(data.hex())
        size += len(data)
open(sys.argv[2], "w").write("".join(line + "\n" for line in sorted(kept, key=lambda line: (len(line), line))))
PYTHON
}

status=0
for target in "${targets[@]}"; do
    length=$(echo "$all" | awk -v name="$target" '$1 == name { print $2 }')
    [ -n "$length" ] || { echo "fuzz.sh: there is no target \"$target\"; --list names them" >&2 && exit 2; }
    directory=$work/$target
    echo "$all" | awk -v name="$target" '$1 == name { for (i = 3; i <= NF; i++) print $i }' | unpack "$directory"
    [ ! -e "$corpus/$target" ] || unpack "$directory" <"$corpus/$target"
    # 256 MiB is what any parser may take, whatever it reads; ten seconds for one input are a hang.
    if KEDGE_FUZZ_TARGET=$target nice -n 19 $program "$directory" -max_total_time="$seconds" -max_len="$length" \
        -rss_limit_mb=512 -malloc_limit_mb=256 -timeout=10 -use_value_profile=1 -print_final_stats=1 \
        -artifact_prefix="$work/failures/$target-" >"$work/$target.log" 2>&1; then
        verdict=ok
    else
        verdict=FAILED
        status=1
    fi
    runs=$(awk '/stat::number_of_executed_units/ { print $2 }' "$work/$target.log")
    echo "$target: $verdict, ${runs:-?} executions, $(find "$directory" -type f | wc -l) inputs"
    if [ $verdict = FAILED ]; then
        grep -m 3 -E 'Fatal error|ERROR|error:' "$work/$target.log" >&2 || true
        failures=$(mktemp -d)
        cp "$work/failures/$target"-* "$failures"
        pack "$failures" "$corpus/$target"
        rm -r "$failures"
    elif [ -n "$keep" ]; then
        minimal=$(mktemp -d)
        KEDGE_FUZZ_TARGET=$target nice -n 19 $program -merge=1 -max_len="$length" "$minimal" "$directory" \
            >>"$work/$target.log" 2>&1
        pack "$minimal" "$corpus/$target"
        rm -r "$minimal"
    fi
done
exit $status
