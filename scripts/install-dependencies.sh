#!/usr/bin/env bash
# Installs what building and testing need, by Debian package name. Safe to repeat: does nothing when all is there.
set -euo pipefail

packages=(
    libssl-dev zlib1g-dev liblz4-dev libzstd-dev libxxhash-dev libexpat1-dev # the C libraries inside kedge
    libpq-dev libcurl4-openssl-dev                                      # headers of those that are loaded on demand
    libpq5 libcurl4                                                     # loaded when a database or an object store is talked to
    python3-cryptography python3-zstandard python3-lz4                  # Catalog/reader.py
    python3-jsonschema                                                  # tests of Catalog/v1/schema
    git make gcc libstdc++-12-dev                                       # the shipped binary links libstdc++.a
)
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0
if [ "$(id -u)" != 0 ]; then
    echo "install-dependencies.sh: root is needed to install: ${missing[*]}" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || {
    apt-get update -qq >&2
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}
