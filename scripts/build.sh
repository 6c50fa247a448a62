#!/usr/bin/env bash
# Builds the program that is shipped: build/kedge, optimised, with Swift's runtime, the codecs and the cryptography inside.
#   build.sh             one file that needs libm and libc (docs/decisions/0001-one-static-binary.md)
#   build.sh --dynamic   build/kedge-dynamic: the same against the shared libraries of this host
#   build.sh --bench     build/kedge and build/codec-only, which scripts/bench.sh holds it against
# libpq and libcurl are loaded when a database or an object store is talked to, in both.
set -euo pipefail
cd "$(dirname "$0")/.."

dynamic=no
products=(kedge)
case "${1:-}" in
"") ;;
--dynamic) dynamic=yes ;;
--bench) products+=(codec-only) ;;
*) echo "usage: build.sh [--dynamic | --bench]" >&2 && exit 2 ;;
esac

libraries=(libcrypto libz liblz4 libzstd libxxhash libexpat)
build() { # build PRODUCT FLAG...; the order of the flags does not matter, their spelling for three programs in a row does
    swift build --configuration release --product "$@"
}

mkdir -p build
if [ "$dynamic" = yes ]; then
    build kedge
    install -m 0755 "$(swift build --configuration release --show-bin-path)/kedge" build/kedge-dynamic
    echo build/kedge-dynamic
    exit 0
fi

# A directory with nothing but links to the archives, searched first: there the linker finds no .so to prefer.
links=$PWD/build/archives
rm -rf "$links"
mkdir -p "$links"
for library in "${libraries[@]}" libstdc++; do
    archive=$(gcc -print-file-name="$library.a")
    [ -e "$archive" ] || {
        echo "build.sh: $library.a is not installed: run scripts/install-dependencies.sh" >&2
        exit 1
    }
    ln -s "$(readlink -f "$archive")" "$links/$library.a"
done
for product in "${products[@]}"; do
    # PRIVATE_LIBCRYPTO: nobody else uses the libcrypto inside (Sources/OpenSSL/OpenSSL.swift).
    # --disable-local-rpath: no library is looked for beside the program, not even libc's.
    build "$product" --static-swift-stdlib --disable-local-rpath -Xswiftc -DPRIVATE_LIBCRYPTO -Xlinker "-L$links" \
        -Xswiftc -Xclang-linker -Xswiftc -static-libgcc -Xlinker -s
    install -m 0755 "$(swift build --configuration release --show-bin-path)/$product" "build/$product"

    needs=$(ldd "build/$product" | awk '{print $1}' | grep -vE '^(linux-vdso|libm|libc)\.so|^/lib64/ld-linux' || true)
    [ -z "$needs" ] || {
        echo "build.sh: build/$product needs more than libm and libc: $needs" >&2
        exit 1
    }
    # Its queues' names: somebody uses tasks or their clocks, and every start pays for that.
    if [ "$product" = kedge ] && grep -q 'com\.apple\.root\.default-qos' build/kedge; then
        echo "build.sh: build/kedge has libdispatch in it (docs/decisions/0001-one-static-binary.md)" >&2
        exit 1
    fi
    echo "build/$product"
done
