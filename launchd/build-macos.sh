#!/bin/sh
# Builds the gateway for Macs with Apple silicon, packages it with its installer, and prints the package's path.
#
#   sh launchd/build-macos.sh [--target aarch64-apple-darwin]
#
# On a Mac with its own tools. On Linux with zig (from the Python package index) as compiler and linker, and with stubs for Apple's
# frameworks, which every Mac has.
set -eu
cd "$(dirname "$0")/.."
target=aarch64-apple-darwin
case ${1:-} in
    '') ;;
    --target) target=${2:?--target needs a target} ;;
    *) echo "usage: sh launchd/build-macos.sh [--target $target]" >&2; exit 1 ;;
esac
case $target in
    aarch64-apple-darwin) architecture=arm64 ;;
    x86_64-apple-darwin) architecture=x86_64 ;;
    *) echo "build-macos.sh: $target is not a Mac target" >&2; exit 1 ;;
esac
# The oldest supported macOS.
export MACOSX_DEPLOYMENT_TARGET=13.0
rustup target add "$target" >/dev/null 2>&1 || { echo "build-macos.sh: rustup has no target $target" >&2; exit 1; }
out=${CARGO_TARGET_DIR:-target}
packages=$out/packages
mkdir -p "$packages"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The package's other files. The man page is printed by a gateway built for this machine.
sh .ci/third-party.sh gateway "$target" "$work/THIRD-PARTY.txt"
cargo build --quiet --workspace --bin gateway >&2
"$out/debug/gateway" man >"$work/gateway.8"

if [ "$(uname)" != Darwin ]; then
    # shellcheck source=zig.sh
    . launchd/zig.sh
fi
cargo build --quiet --release --target "$target" -p gateway >&2

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
archive=$packages/gateway-$version-macos-$architecture.tar.gz
sh launchd/package.sh "$out/$target/release/gateway" "$archive" "$work/THIRD-PARTY.txt" "$work/gateway.8"
echo "$archive"
