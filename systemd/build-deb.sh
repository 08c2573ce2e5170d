#!/bin/sh
# Builds the Debian package of the sidecar and prints its path, alone, on standard output.
#
#   sh systemd/build-deb.sh
#
# BIN=FILE         packs this binary; builds nothing
# VERSION=1.2.3    instead of the workspace's version
# FAST=1           compresses lightly, for tests
# THIRD_PARTY=FILE licences of linked code instead of those that .ci/third-party.sh collects, for tests
#
# The package runs on Ubuntu 22.04 and newer, and on Debian 12 and newer.
set -eu
cd "$(dirname "$0")/.."
oldest_glibc=2.35

fail() {
    printf 'build-deb.sh: %s\n' "$*" >&2
    exit 1
}

for command in dpkg-shlibdeps objdump strip; do
    command -v "$command" >/dev/null 2>&1 || fail "no $command: sudo apt-get install dpkg-dev binutils"
done
if ! cargo deb --version >/dev/null 2>&1; then
    echo "build-deb.sh: installing cargo-deb" >&2
    cargo install --locked --quiet cargo-deb >&2
fi

out=${CARGO_TARGET_DIR:-target}
mkdir -p "$out"
out=$(cd "$out" && pwd)
host=$(rustc -vV | sed -n 's/^host: //p')
binary=${BIN:-}
if [ -z "$binary" ]; then
    cargo build --quiet --release -p ada2-sidecar >&2
    binary=$out/release/ada2-sidecar
fi

# Symbols that the oldest system's C library lacks would otherwise show only when the program starts there.
needed=$(objdump -T "$binary" | grep -o 'GLIBC_[0-9][0-9.]*' | sort -Vu | tail -n 1)
newest=$(printf '%s\n' "$needed" "GLIBC_$oldest_glibc" | sort -V | tail -n 1)
[ "$newest" = "GLIBC_$oldest_glibc" ] || fail "$binary needs $needed, and Ubuntu 22.04 has GLIBC_$oldest_glibc.
Build on Ubuntu 22.04, or link for its library with zig:
  pip install cargo-zigbuild ziglang
  cargo zigbuild --release -p ada2-sidecar --target $host.$oldest_glibc
  BIN=target/$host/release/ada2-sidecar sh systemd/build-deb.sh"

# cargo-deb takes the build from a target directory; this one contains nothing else.
stage=$out/deb
rm -rf "$stage"
mkdir -p "$stage/release"
strip --remove-section=.comment --remove-section=.note -o "$stage/release/ada2-sidecar" "$binary"
"$binary" man | gzip -9n >"$stage/release/ada2-sidecar.8.gz"
if [ -n "${THIRD_PARTY:-}" ]; then
    cp "$THIRD_PARTY" "$stage/release/THIRD-PARTY.txt"
else
    sh .ci/third-party.sh ada2-sidecar "$host" "$stage/release/THIRD-PARTY.txt" >&2
fi
gzip -9n "$stage/release/THIRD-PARTY.txt"
gzip -9nc CHANGELOG.md >"$stage/release/changelog.gz"

SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
version=${VERSION:-$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)}
maintainer=$(sed -n 's/^maintainer = "\([^"]*\)".*/\1/p' ada2-sidecar/Cargo.toml)

# changelog_entry VERSION DATE: in the format of Debian's tools.
changelog_entry() {
    printf 'ada2-sidecar (%s-1) stable; urgency=medium\n\n  * %s\n\n -- %s  %s\n\n' "$1" \
        "Version $1; what changed is in changelog.gz beside this file." "$maintainer" "$(date -u -R -d "$2")"
}
{
    grep -q "^## \[$version\]" CHANGELOG.md || changelog_entry "$version" "@$SOURCE_DATE_EPOCH"
    sed -n 's/^## \[\([0-9][^]]*\)\] - \([0-9-]*\)$/\1 \2/p' CHANGELOG.md |
        while read -r released date; do changelog_entry "$released" "$date"; done
} | gzip -9n >"$stage/release/changelog.Debian.gz"

mkdir -p "$out/packages"
package=$out/packages/ada2-sidecar_$version-1_$(dpkg --print-architecture).deb
CARGO_TARGET_DIR=$stage cargo deb --quiet --locked --manifest-path ada2-sidecar/Cargo.toml --no-build --no-strip \
    --deb-version "$version-1" --output "$package" ${FAST:+--fast} >&2
rm -rf "$stage"
echo "$package"
