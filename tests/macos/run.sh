#!/bin/sh
# The Mac's install.sh, deploy.sh and rollback.sh with the real gateway, on a copy-on-write root of this Linux host where
# macOS's commands are stand-ins that record how they are called and do as launchd does. Root; nothing outside /tmp.
#
#   tests/macos/run.sh      BIN_DIR (a gateway that is built already)
set -eu
cd "$(dirname "$0")/../.."
for command in unshare chroot python3 setpriv ss; do
    command -v "$command" >/dev/null || { echo "skipped: no $command"; exit 0; }
done
[ "$(id -u)" = 0 ] || { echo "skipped: needs root"; exit 0; }
if [ -z "${BIN_DIR:-}" ]; then
    cargo build --quiet --workspace --bin gateway
    BIN_DIR=${CARGO_TARGET_DIR:-target}/debug
fi
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
# The package as people get it, but for the binary. The page is not read here: any will do.
echo '.TH gateway 8' >"$stage/gateway.8"
SOURCE_DATE_EPOCH=0 sh launchd/package.sh "$BIN_DIR/gateway" "$stage/package.tar.gz" "$stage/gateway.8"
tar -C "$stage" -xzf "$stage/package.tar.gz"
cp tests/macos/commands.py tests/macos/doctor.py tests/macos/scenario.py "$stage"
# shellcheck disable=SC2016
unshare --mount --pid --fork --kill-child sh -euc '
    mount --make-rprivate /
    mkdir "$1/layers"
    mount -t tmpfs tmpfs "$1/layers"
    mkdir "$1/layers/upper" "$1/layers/work" "$1/layers/root"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$1/layers/upper,workdir=$1/layers/work" "$1/layers/root" 2>/dev/null ||
        { echo "skipped: overlayfs cannot be mounted here"; exit 0; }
    mount -t proc proc "$1/layers/root/proc"
    mount -t devtmpfs dev "$1/layers/root/dev" 2>/dev/null || mount --rbind /dev "$1/layers/root/dev"
    mount -t tmpfs tmpfs "$1/layers/root/tmp"
    # A new Mac has neither /usr/local/bin nor what Linux keeps in /var.
    mount -t tmpfs -o mode=755 tmpfs "$1/layers/root/var"
    mount -t tmpfs -o mode=755 tmpfs "$1/layers/root/usr/local"
    mkdir -m 755 "$1/layers/root/opt/mac"
    cp -a "$1/package" "$1/commands.py" "$1/doctor.py" "$1/scenario.py" "$1/layers/root/opt/mac/"
    exec chroot "$1/layers/root" python3 -B /opt/mac/scenario.py
' sh "$stage"
