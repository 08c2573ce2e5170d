#!/bin/sh
# Pastes the guides' commands: `tests/guides/run.sh [--check] [--keep-going] [GUIDE …]`. See README.md.
set -eu
cd "$(dirname "$0")/../.."
command -v python3 >/dev/null 2>&1 || { echo "skipped: the guides' commands: there is no python3"; exit 0; }

programs=${BIN_DIR:-}
if [ -z "$programs" ]; then
    cargo build --quiet --workspace
    programs=${CARGO_TARGET_DIR:-target}/debug
fi
(cd tests/guides && python3 -B -m unittest --quiet test_guides test_names)
python3 -B tests/guides/walk.py --check "$programs"
[ "${1:-}" != --check ] || exit 0

skip() {
    echo "skipped: walking through the guides: $*"
    exit 0
}
[ "$(uname)" = Linux ] || skip "this is no Linux"
[ "$(id -u)" = 0 ] || skip "needs root, for namespaces and mounts"
for command in systemctl dbus-daemon unshare nsenter ip ss runuser setpriv sudo nginx curl dpkg-deb dpkg-shlibdeps objdump; do
    command -v "$command" >/dev/null 2>&1 ||
        skip "$command is not here (apt-get install systemd dbus iproute2 sudo nginx curl dpkg-dev binutils)"
done
unshare --mount --cgroup --pid --fork --uts --ipc --net true 2>/dev/null || skip "namespaces cannot be made here"

# The programs under test, packed as they are; nothing is built for release.
package=${PACKAGE:-}
if [ -z "$package" ]; then
    package=$(BIN="$programs/ada2-sidecar" FAST=1 THIRD_PARTY=LICENSE-MIT sh systemd/build-deb.sh)
fi
exec python3 -B tests/guides/walk.py "$programs" "$programs/libfake_nvml.so" "$package" "$@"
