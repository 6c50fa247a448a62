#!/usr/bin/env bash
# Starts real object stores for tests, each in a directory of its own below DIRECTORY, bound to 127.0.0.1.
#   object-stores.sh start DIRECTORY NAME...   NAME: seaweedfs, rclone, ceph; prints a line for each, as KEDGE_TEST_S3 takes
#                                              them: NAME ENDPOINT REGION BUCKET KEY SECRET CONDITIONAL TLS-ENDPOINT CA-FILE
#   object-stores.sh stop DIRECTORY            ends them and removes what they stored
# CONDITIONAL says whether the store honours conditional puts (docs/object-stores.md).
# Programs from PyPI are kept in KEDGE_TEST_CACHE (/var/cache/kedge-testing, or below ~/.cache for others than root), so that
# only the first start installs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd -P)/s3
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/kedge-testing
[ "$(id -u)" != 0 ] || cache=/var/cache/kedge-testing
cache=${KEDGE_TEST_CACHE:-$cache}

usage() {
    echo "usage: object-stores.sh start DIRECTORY seaweedfs|rclone|ceph... | stop DIRECTORY" >&2
    exit 2
}

# script NAME ACTION: runs the server's own script with its state below the directory.
script() {
    local name=$1 action=$2
    export S3_TEST_VENV=$cache/$name
    case $name in
    seaweedfs) SEAWEED_DIR=$directory/$name "$here/seaweedfs-s3.sh" "$action" ;;
    rclone) RCLONE_DIR=$directory/$name "$here/rclone-s3.sh" "$action" ;;
    ceph) RGW_DIR=$directory/$name "$here/ceph-rgw.sh" "$action" ;;
    *) usage ;;
    esac
}

[ $# -ge 2 ] || usage
action=$1 directory=$2
shift 2
case $action in
start)
    mkdir -p "$directory" "$cache"
    directory=$(cd "$directory" && pwd -P)
    # One start at a time: two would find the same ports free, and one serve the other's tests. Servers do not inherit it.
    exec 8>"$cache/start.lock"
    flock -w 600 8 || { echo "object-stores.sh: another start holds $cache/start.lock" >&2 && exit 1; }
    for name in "$@"; do
        conditional=yes
        [ "$name" != rclone ] || conditional=no
        (
            settings=$(script "$name" start 8>&-)
            eval "$settings"
            echo "$name $S3_ENDPOINT $S3_REGION $S3_BUCKET $S3_ACCESS_KEY $S3_SECRET_KEY $conditional" \
                "$S3_TLS_ENDPOINT $S3_CA_FILE"
        )
    done
    ;;
stop)
    [ -d "$directory" ] || exit 0
    directory=$(cd "$directory" && pwd -P)
    for name in seaweedfs rclone ceph; do
        [ ! -d "$directory/$name" ] || script "$name" destroy
    done
    ;;
*) usage ;;
esac
