#!/bin/sh
# move-in and move-out in a real systemd, with a real nginx: `tests/systemd/moving.sh [names of checks]`. See README.md.
set -eu
cd "$(dirname "$0")/../.."

skip() {
    echo "skipped: move-in and move-out in a real systemd: $*"
    exit 0
}
[ "$(uname)" = Linux ] || skip "this is no Linux"
[ "$(id -u)" = 0 ] || skip "needs root, for namespaces and mounts"
for command in systemctl systemd-run dbus-daemon unshare nsenter ip runuser python3 nginx; do
    command -v "$command" >/dev/null 2>&1 || skip "$command is not here (apt-get install systemd dbus iproute2 python3 nginx)"
done
[ -x /lib/systemd/systemd ] || skip "/lib/systemd/systemd is not here"
unshare --mount --cgroup --pid --fork --uts --ipc --net true 2>/dev/null || skip "namespaces cannot be made here"

programs=${BIN_DIR:-}
if [ -z "$programs" ]; then
    cargo build --quiet --workspace
    programs=${CARGO_TARGET_DIR:-target}/debug
fi
units=${UNITS:-systemd}
directory=$(mktemp -d /tmp/ada2-moving-XXXXXX)
host=tests/systemd/host.sh
trap 'bash "$host" "$directory" stop; rm -rf "$directory"' EXIT
trap 'exit 130' INT TERM

# Where the unit says that the program is.
program=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$units/ada2-sidecar.service")

# Boots, with the program, the units and the test in place. The rest of its disk is this machine's, and what DISK holds.
boot() {
    timeout 60 bash "$host" "$directory" start >"$directory/started" 2>&1 || { cat "$directory/started"; skip "systemd does not boot here"; }
    root=/proc/$(cat "$directory/leader")/root
}

disk=$directory/disk
install -D -m 755 "$programs/ada2-sidecar" "$disk$program"
install -D -m 644 "$programs/libfake_nvml.so" "$disk/opt/ada2-test/nvml/libnvidia-ml.so.1"
install -m 755 "$programs/fake-invokeai" "$disk/opt/ada2-test/"
install -m 644 tests/systemd/*.py "$disk/opt/ada2-test/"
install -D -m 644 -t "$disk/etc/systemd/system" "$units/ada2-sidecar.service" "$units/ada2-sidecar.socket"
export DISK="$disk"

boot
failed=0
timeout -k 5 240 bash "$host" "$directory" run python3 -B /opt/ada2-test/moving.py "$@" || failed=1

# A power failure: what was on disk in the middle of a move-in boots again, and nginx serves. With `enabled`, in the last
# moment of it: our units would be started by the boot. With `leaving`, in the first moment of a move-out.
power_failure() {
    bash "$host" "$directory" stop
    export DISK="$disk"
    boot
    timeout 60 bash "$host" "$directory" run python3 -B /opt/ada2-test/moving.py before_power_cut "$1" || return 1
    cut=$directory/cut
    rm -rf "$cut"
    cp -a "$disk" "$cut"
    for part in etc/nginx etc/ada2-sidecar etc/systemd/system var/lib/ada2-sidecar-move-in opt/ada2-test/nvml home; do
        mkdir -p "$cut/$part"
        cp -a "$root/$part/." "$cut/$part/"
    done
    bash "$host" "$directory" stop
    wants=$cut/etc/systemd/system
    find "$wants" -maxdepth 1 -type l -lname /dev/null -delete
    if [ "$1" = enabled ]; then
        mkdir -p "$wants/sockets.target.wants"
        ln -s ../ada2-sidecar.service "$wants/multi-user.target.wants/ada2-sidecar.service"
        ln -s ../ada2-sidecar.socket "$wants/sockets.target.wants/ada2-sidecar.socket"
    fi
    export DISK="$cut"
    boot
    timeout 60 bash "$host" "$directory" run python3 -B /opt/ada2-test/moving.py after_power_cut "$1"
}

if [ $# = 0 ] || [ "$1" = power_failure ]; then
    for units in started enabled leaving; do
        begun=$(date +%s)
        if power_failure "$units"; then
            echo "ok    a power failure, $units: nginx serves after the boot: $(($(date +%s) - begun)) s"
        else
            echo "FAIL  a power failure, $units"
            failed=1
        fi
    done
fi
exit "$failed"
