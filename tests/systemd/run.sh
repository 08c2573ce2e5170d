#!/bin/sh
# The units in a real systemd: `tests/systemd/run.sh [names of checks]`. See README.md.
set -eu
cd "$(dirname "$0")/../.."

skip() {
    echo "skipped: the units in a real systemd: $*"
    exit 0
}
[ "$(uname)" = Linux ] || skip "this is no Linux"
[ "$(id -u)" = 0 ] || skip "needs root, for namespaces and mounts"
for command in systemctl journalctl systemd-analyze dbus-daemon unshare nsenter ip runuser python3; do
    command -v "$command" >/dev/null 2>&1 || skip "$command is not here (apt-get install systemd dbus iproute2 python3)"
done
[ -x /lib/systemd/systemd ] || skip "/lib/systemd/systemd is not here"
unshare --mount --cgroup --pid --fork --uts --ipc --net true 2>/dev/null || skip "namespaces cannot be made here"

programs=${BIN_DIR:-}
if [ -z "$programs" ]; then
    cargo build --quiet --workspace
    programs=${CARGO_TARGET_DIR:-target}/debug
fi
folder=$(mktemp -d /tmp/ada2-systemd-XXXXXX)
host=tests/systemd/host.sh
trap 'bash "$host" "$folder" stop; rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM

timeout 60 bash "$host" "$folder" start >"$folder/started" 2>&1 || { cat "$folder/started"; skip "systemd does not boot here"; }
root=/proc/$(cat "$folder/leader")/root
install -m 755 "$programs/ada2-sidecar" "$root/usr/local/bin/ada2-sidecar"
install -D -m 644 "$programs/libfake_nvml.so" "$root/opt/ada2-test/nvml/libnvidia-ml.so.1"
install -m 644 tests/systemd/*.py tests/fixtures/invokeai/models.json tests/fixtures/invokeai/openapi.json "$root/opt/ada2-test/"
install -m 644 "${UNITS:-systemd}"/ada2-sidecar.service "${UNITS:-systemd}"/ada2-sidecar.socket "$root/etc/systemd/system/"
failed=0
timeout -k 5 240 bash "$host" "$folder" run python3 -B /opt/ada2-test/checks.py "$@" || failed=1
timeout -k 5 400 bash "$host" "$folder" run python3 -B /opt/ada2-test/doctor.py "$@" || failed=1
exit "$failed"
