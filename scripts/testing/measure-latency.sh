#!/usr/bin/env bash
# Measures what a far-away object store costs archiving and recovery: SeaweedFS behind a proxy that holds every request
# back for 50 ms. Prints how fast 200 waiting segments drain against one by one, what CPU an acknowledgement from the
# spool takes, and how fast recovery replays against local files. Run as root; PostgreSQL 15; some minutes.
#   measure-latency.sh [KEDGE]     KEDGE: the binary (default build/kedge)
# Environment: MEASURE_DELAY (0.05 s), MEASURE_SEGMENT_MIB (16), MEASURE_PHASES ("drain recovery"),
# MEASURE_COUNT (200)
set -euo pipefail
cd "$(dirname "$0")/../.."
kedge=$(readlink -f "${1:-build/kedge}")
bin=$(scripts/testing/install-postgres.sh 15 | cut -f2)
count=${MEASURE_COUNT:-200}
phases=${MEASURE_PHASES:-drain recovery}
dir=$(mktemp -d "${TMPDIR:-/tmp}/kedge-latency.XXXXXX")
chmod 755 "$dir"
proxy=

as_server() { runuser -u postgres -- "$@"; }
cleanup() {
    set +e
    for file in "$dir"/*/postmaster.pid; do
        [ ! -f "$file" ] || as_server "$bin/pg_ctl" -D "$(dirname "$file")" -m immediate -s stop
    done
    [ -z "$proxy" ] || kill "$proxy" 2>/dev/null
    scripts/testing/object-stores.sh stop "$dir/s3" 2>/dev/null
    rm -rf "$dir"
}
trap cleanup EXIT
trap "exit 143" TERM

read -r _ endpoint region bucket key secret conditional _ _ <<<"$(scripts/testing/object-stores.sh start "$dir/s3" seaweedfs)"
python3 scripts/testing/latency-proxy.py "${MEASURE_DELAY:-0.05}" "${endpoint#http://}" >"$dir/port" &
proxy=$!
until [ -s "$dir/port" ]; do sleep 0.1; done

cp "$kedge" "$dir/kedge"
mkdir "$dir/home"
mkdir -m 700 "$dir/work"
echo "$key" >"$dir/home/id"
echo "$secret" >"$dir/home/secret"
chmod 600 "$dir/home/id" "$dir/home/secret"
cat >"$dir/home/kedge.conf" <<CONF
[repository main]
type = s3
endpoint = http://127.0.0.1:$(cat "$dir/port")
region = $region
bucket = $bucket
prefix = latency
uri-style = path
access-key-id-file = $dir/home/id
secret-access-key-file = $dir/home/secret
conditional-put = $conditional
encryption = aes-256-gcm
key-file = $dir/home/key
[cluster main]
pgdata = $dir/data
host = $dir
user = postgres
process-max = 2
work-directory = $dir/work
CONF
chown -R postgres "$dir/home" "$dir/work"
chown postgres "$dir"
run_kedge() { as_server "$dir/kedge" --config "$dir/home/kedge.conf" "$@"; }
sql() { as_server "$bin/psql" -h "$dir" -U postgres -AtqX postgres -c "$1"; }
nanoseconds() { date +%s%N; }

as_server "$bin/initdb" -D "$dir/data" -U postgres -A trust --no-sync --wal-segsize="${MEASURE_SEGMENT_MIB:-16}" >/dev/null
cat >>"$dir/data/postgresql.conf" <<CONF
archive_mode = on
archive_command = '/bin/false'
fsync = off
unix_socket_directories = '$dir'
listen_addresses = ''
wal_keep_size = 16GB
max_wal_size = 16GB
checkpoint_timeout = 1h
CONF
run_kedge init --generate-key "$dir/home/key" >/dev/null
as_server "$bin/pg_ctl" -D "$dir/data" -l "$dir/home/log" -s -w start
as_server "$bin/pgbench" -h "$dir" -U postgres -i -q -s 10 postgres 2>/dev/null
archive() { # COMMAND
    sql "alter system set archive_command = '$1'" && sql 'select pg_reload_conf()' >/dev/null
}
push="$dir/kedge --config $dir/home/kedge.conf archive-push %p"
archive "$push"
run_kedge backup >/dev/null
archive /bin/false
sleep 1
cd "$dir/data"
ready() { find pg_wal/archive_status -name '*.ready' | sed -n 's#.*/\([0-9A-F]\{24\}\)\.ready$#\1#p' | sort; }
# Half of what fills a segment is work to replay, half of it compresses.
until [ "$(ready | wc -l)" -ge $((count + 21)) ]; do
    as_server "$bin/pgbench" -h "$dir" -U postgres -n -c 2 -T 2 postgres >/dev/null 2>&1
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        sql "insert into pgbench_history select 1, 1, 1, 1 from generate_series(1, 20000)"
        sql "select pg_switch_wal()" >/dev/null
    done
done
ready >"$dir/home/names"

# Pushes the segments on standard input one after the other, as the archiver does.
push_all() {
    as_server sh -ec 'kedge=$1 config=$2; shift 2
        while read -r name; do "$kedge" --config "$config" archive-push "pg_wal/$name" "$@" </dev/null; done' \
        sh "$dir/kedge" "$dir/home/kedge.conf" "$@"
}

case $phases in *drain*)
    begin=$(nanoseconds)
    push_all --archive-push-ahead 0 < <(head -n 20 "$dir/home/names")
    one=$((($(nanoseconds) - begin) / 20000))
    rm -rf "$dir"/work/spool
    sed -n "21,$((count + 20))p" "$dir/home/names" >"$dir/home/rest"
    begin=$(nanoseconds)
    push_all <"$dir/home/rest"
    all=$((($(nanoseconds) - begin) / 1000))
    echo "one by one: $((one / 1000)) ms a segment (20 of them)"
    echo "drain of $count waiting segments: $((all / 1000)) ms, $((all / count / 1000)) ms a segment"
    echo "as fast as one by one: $((one * count / all)).$((one * count * 100 / all % 100)) times"
    python3 - "$(head -n 1 "$dir/home/rest")" "$dir" <<'PYTHON'
import resource, statistics, subprocess, sys
name, directory = sys.argv[1:]
base = [directory + "/kedge", "--config", directory + "/home/kedge.conf"]
def cpu(arguments):
    times, out = [], b""
    for _ in range(50):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        out = subprocess.run(base + arguments, capture_output=True, user="postgres", group="postgres").stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append((after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1000)
    return out, f"median {statistics.median(times):.2f} ms, least {min(times):.2f} ms"
out, text = cpu(["archive-push", "pg_wal/" + name, "--json"])
print("CPU of an acknowledgement" + ("" if b'"fromSpool": true' in out else " (NOT from the spool)") + ": " + text)
print("CPU of \"kedge --version\", which does nothing: " + cpu(["--version"])[1])
PYTHON
    ;;
esac

case $phases in *recovery*)
    archive "$push"
    sql "select pg_switch_wal()" >/dev/null
    while [ -n "$(ready)" ]; do sleep 0.2; done
    as_server "$bin/pg_ctl" -D "$dir/data" -m fast -s -w stop
    as_server mkdir "$dir/wal"
    as_server sh -c "cp pg_wal/0* $dir/wal/"
    recover() { # NAME RESTORE_COMMAND
        cd "$dir"
        rm -rf "$dir/copy" "$dir/home/log.copy"
        run_kedge restore --pgdata "$dir/copy" --archiving off >/dev/null 2>&1
        local begin end
        begin=$(nanoseconds)
        as_server "$bin/pg_ctl" -D "$dir/copy" -l "$dir/home/log.copy" -s -w -t 900 -o \
            "-c restore_command='$2' -c fsync=off -c unix_socket_directories=$dir" start
        until [ "$(sql 'select pg_is_in_recovery()' 2>/dev/null)" = f ]; do
            as_server "$bin/pg_ctl" -D "$dir/copy" status >/dev/null || { tail -n 20 "$dir/home/log.copy" && exit 1; }
            sleep 0.05
        done
        end=$(nanoseconds)
        echo "recovery from $1: $(((end - begin) / 1000000)) ms," \
            "$(grep -c 'restored log file' "$dir/home/log.copy") segments;" \
            "$(sed -n 's/.*redo done.*elapsed: /replay /p' "$dir/home/log.copy")"
        as_server "$bin/pg_ctl" -D "$dir/copy" -m immediate -s -w stop
    }
    for _ in 1 2; do
        recover "local files" "cp $dir/wal/%f %p"
        recover kedge "$dir/kedge --config $dir/home/kedge.conf archive-get %f %p"
    done
    recover "kedge without fetching ahead" \
        "$dir/kedge --config $dir/home/kedge.conf archive-get --archive-get-prefetch 0 %f %p"
    ;;
esac
