#!/usr/bin/env bash
# Shows the main job of kedge, end to end, on a scratch cluster and a local repository: protect a running PostgreSQL
# cluster, drop a table "by accident", and bring it back as it was just before. Installs what is missing, builds,
# and removes everything that it made outside the project's own build directory.
#
#   scripts/demo.sh            the whole story, in two or three minutes on a small machine
#   KEDGE_DEMO_SCALE=50        pgbench scale of the scratch database (default 10: about 150 MB)
#   KEDGE_DEMO_KEEP=1          leave the clusters and the repository in place
set -euo pipefail
cd "$(dirname "$0")/.."

bold=$(tput bold 2>/dev/null || true)
plain=$(tput sgr0 2>/dev/null || true)
step() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
phase_names=()
phase_seconds=()
phase() { # phase NAME COMMAND...: runs it and remembers how long it took
    local name=$1 start
    shift
    start=$(date +%s.%N)
    "$@"
    phase_names+=("$name")
    phase_seconds+=("$(echo "$(date +%s.%N) - $start" | bc)")
}

step "Install what is missing, and build"
scripts/install-dependencies.sh
command -v bc >/dev/null || { apt-get install -y -qq bc >/dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq bc >/dev/null; }; }
bin=$(scripts/testing/install-postgres.sh 15 | cut -f2)
scripts/build.sh

# PostgreSQL refuses to run as root, so the demo runs as the user that owns the servers.
if [ "$(id -u)" = 0 ]; then as_postgres=(runuser -u postgres --); else as_postgres=(); fi
pg() { "${as_postgres[@]}" "$@"; }

dir=$(pg mktemp -d /tmp/kedge-demo.XXXXXX)
cleanup() {
    status=$?
    if [ "${KEDGE_DEMO_KEEP:-}" = 1 ]; then
        echo "Left in place: $dir"
    else
        for data in "$dir/main" "$dir/restored"; do
            if [ -f "$data/postmaster.pid" ]; then pg "$bin/pg_ctl" -D "$data" -m immediate -s stop || true; fi
        done
        rm -rf "$dir"
    fi
    exit "$status"
}
trap cleanup EXIT
install -m 755 build/kedge "$dir/kedge"
kedge() { (cd "$dir" && pg "$dir/kedge" --config "$dir/kedge.conf" "$@"); }
sql() { pg "$bin/psql" -X -q -At -h "$dir" -p "$1" -d postgres -c "$2"; }

step "A scratch cluster, and kedge's configuration"
pg "$bin/initdb" -D "$dir/main" -k -U postgres --locale=C.UTF-8 -A trust >/dev/null
pg tee "$dir/kedge.conf" <<CONF
[repository main]
type = local
path = $dir/repository
encryption = aes-256-gcm
key-file = $dir/main.key

[cluster main]
pgdata = $dir/main
host = $dir
port = 54001
user = postgres
dbname = postgres
bin-dir = $bin
repositories = main
work-directory = $dir/work
drill-directory = $dir/drills
CONF
pg mkdir "$dir/work"
pg tee -a "$dir/main/postgresql.conf" >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$dir'
port = 54001
archive_mode = on
archive_command = '$dir/kedge --config $dir/kedge.conf archive-push %p'
CONF

step "kedge init: create the repository and a key, register the cluster"
phase "init" kedge init --generate-key "$dir/main.key"
pg "$bin/pg_ctl" -D "$dir/main" -l "$dir/main.log" -w -s start

step "kedge check: does everything work, archiving included?"
phase "check" kedge check

step "Some data, and load"
pg "$bin/pgbench" -h "$dir" -p 54001 -U postgres -i -q -s "${KEDGE_DEMO_SCALE:-10}" postgres 2>&1 | tail -1
pg "$bin/pgbench" -h "$dir" -p 54001 -U postgres -c 2 -T 15 -R 300 postgres >/dev/null 2>&1 &
load=$!

step "kedge backup: a full backup while the load goes on"
phase "backup" kedge backup --type full
wait "$load" || true

step "Somebody drops the wrong table"
rows=$(sql 54001 "select count(*), sum(abalance) from pgbench_accounts")
moment=$(sql 54001 "select clock_timestamp()")
echo "At $moment pgbench_accounts holds (rows | sum of balances): $rows"
sql 54001 "select pg_sleep(0.2)" >/dev/null
sql 54001 "drop table pgbench_accounts"
sql 54001 "create table after_the_mistake as select 1"
# The segment that holds the moment has to be archived before anybody can go back to it.
kedge check >/dev/null
echo "The table is gone: $(sql 54001 "select coalesce(to_regclass('pgbench_accounts')::text, 'no such table')")"

step "kedge info: what is there, and which moments can be reached"
kedge info

step "kedge restore: back to just before, in a second directory"
phase "restore" kedge restore --pgdata "$dir/restored" --target-time "$moment" --target-action promote
phase "recovery" pg "$bin/pg_ctl" -D "$dir/restored" -l "$dir/restored.log" -w -s -t 300 \
    -o "-p 54002 -c unix_socket_directories='$dir'" start
until [ "$(sql 54002 "select pg_is_in_recovery()")" = f ]; do sleep 0.1; done
back=$(sql 54002 "select count(*), sum(abalance) from pgbench_accounts")
echo "The restored cluster holds (rows | sum of balances): $back"
if [ "$back" != "$rows" ] || [ -n "$(sql 54002 "select to_regclass('after_the_mistake')")" ]; then
    echo "demo.sh: the restored cluster is not as it was at $moment: expected $rows" >&2
    exit 1
fi
echo "Just as it was, and nothing of what came after."

step "kedge drill: the same for the newest backup, as cron would do it every night, with a proof at the end"
phase "drill" kedge drill

step "How long each phase took"
for i in "${!phase_names[@]}"; do LC_ALL=C printf '%-10s %8.2f s\n' "${phase_names[$i]}" "${phase_seconds[$i]}"; done
echo "repository $(du -sh "$dir/repository" | cut -f1), database $(du -sh "$dir/main" | cut -f1)"
