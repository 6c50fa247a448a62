#!/usr/bin/env bash
# Makes the golden samples anew: two small repositories, one plain and one sealed, of one real PostgreSQL 15 cluster with a
# backup, WAL after it, a restore point. Tests drill both.
#
#   scripts/make-golden.sh     writes Catalog/v1/golden; a released version's samples are never made again
#
# While the format is a draft the samples are replaced whenever it changes. Needs a built kedge: KEDGE_BINARY, else
# build/kedge, else .build/debug/kedge.
set -euo pipefail
cd "$(dirname "$0")/.."

target=Catalog/v1/golden
kedge=${KEDGE_BINARY:-}
for candidate in build/kedge .build/debug/kedge; do [ -n "$kedge" ] || [ ! -x "$candidate" ] || kedge=$candidate; done
[ -n "$kedge" ] || { echo "make-golden.sh: build kedge first: scripts/build.sh" >&2 && exit 1; }
"$kedge" --version | grep -q 'format 0-draft' || { echo "make-golden.sh: this kedge writes a released format" >&2 && exit 1; }
bin=$(scripts/testing/install-postgres.sh 15 | cut -f2)

if [ "$(id -u)" = 0 ]; then as_postgres=(runuser -u postgres --); else as_postgres=(); fi
pg() { "${as_postgres[@]}" "$@"; }
dir=$(pg mktemp -d /tmp/kedge-golden.XXXXXX)
cleanup() {
    status=$?
    [ ! -f "$dir/data/postmaster.pid" ] || pg "$bin/pg_ctl" -D "$dir/data" -m immediate -s stop || true
    rm -rf "$dir"
    exit "$status"
}
trap cleanup EXIT
install -m 755 "$kedge" "$dir/kedge"
run() { (cd "$dir" && pg "$dir/kedge" --config "$dir/kedge.conf" "$@"); }
sql() { pg "$bin/psql" -X -q -At -v ON_ERROR_STOP=1 -h "$dir" -p 54009 -U postgres -d postgres -c "$1"; }

pg "$bin/initdb" -D "$dir/data" -k -U postgres --locale=C.UTF-8 -E UTF8 -A trust --wal-segsize=1 --no-sync >/dev/null
pg tee "$dir/kedge.conf" >/dev/null <<CONF
[repository plain]
path = $dir/plain
encryption = none
compression = zstd:19

[repository sealed]
path = $dir/sealed
encryption = aes-256-gcm
key-file = $dir/test-only.key
compression = zstd:19

[cluster sample]
pgdata = $dir/data
host = $dir
port = 54009
user = postgres
dbname = postgres
repositories = plain, sealed
work-directory = $dir/work
CONF
pg tee -a "$dir/data/postgresql.conf" >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$dir'
port = 54009
archive_mode = on
archive_command = '$dir/kedge --config $dir/kedge.conf archive-push %p'
autovacuum = off
CONF
pg mkdir -m 700 "$dir/work"
run init --generate-key "$dir/test-only.key" >/dev/null
pg "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w -s start

# What nobody needs is left out, so that the samples stay small.
sql "alter database template0 is_template false" && sql "drop database template0"
sql "create table sample (number int primary key, text text)"
sql "insert into sample select g, 'before the backup ' || g from generate_series(1, 1000) g"
sql "checkpoint"
for repository in plain sealed; do run --repository "$repository" backup --type full >/dev/null; done
sql "insert into sample select g, 'after the backup ' || g from generate_series(1001, 1500) g"
sql "select pg_create_restore_point('golden')"
sql "insert into sample select g, 'after the restore point ' || g from generate_series(1501, 1600) g"
last=$(sql "select pg_walfile_name(pg_switch_wal())")
until [ "$(sql "select coalesce(last_archived_wal >= '$last', false) from pg_stat_archiver")" = t ]; do sleep 0.1; done

rm -rf "$target"
mkdir -p "$target"
cp -r "$dir/plain" "$dir/sealed" "$target/"
cp "$dir/test-only.key" "$target/"
cat >"$target/README.md" <<'README'
# Golden samples of format 0-draft

Two repositories of one small PostgreSQL 15 cluster, made by `scripts/make-golden.sh`: `plain` (encryption = none) and `sealed`
(aes-256-gcm). `test-only.key` opens the second. **It is a test key that everybody has: never use it for anything else.**

Table `sample` has 1000 rows in the backup, 1500 at the restore point `golden`, and 1600 at the end of the archived WAL. Every
kedge must restore them; while the format is a draft they are made anew when it changes.
README
chmod -R u=rwX,go=rX "$target"
echo "make-golden.sh: $(du -sh "$target" | cut -f1) in $(find "$target" -type f | wc -l) files"
