# shellcheck shell=sh
# Sourced by run.sh and package.sh in the workspace's directory: `boot` brings up a guest with the programs under test, or ends
# the script with 0 and a line that says why not. Afterwards: $directory of the guest, $root of its files, $programs, `guest`.

host=tests/systemd/host.sh

skip() {
    echo "skipped: $checks: $*"
    exit 0
}

# can_boot WHAT: WHAT is what is skipped here if it cannot be checked.
can_boot() {
    checks=$1
    [ "$(uname)" = Linux ] || skip "this is no Linux"
    [ "$(id -u)" = 0 ] || skip "needs root, for namespaces and mounts"
    for command in systemctl journalctl systemd-analyze dbus-daemon unshare nsenter ip runuser python3; do
        command -v "$command" >/dev/null 2>&1 ||
            skip "$command is not here (apt-get install systemd dbus iproute2 python3)"
    done
    [ -x /lib/systemd/systemd ] || skip "/lib/systemd/systemd is not here"
    unshare --mount --cgroup --pid --fork --uts --ipc --net true 2>/dev/null || skip "namespaces cannot be made here"
    programs=${BIN_DIR:-}
    if [ -z "$programs" ]; then
        cargo build --quiet --workspace
        programs=${CARGO_TARGET_DIR:-target}/debug
    fi
}

boot() {
    directory=$(mktemp -d /tmp/ada2-systemd-XXXXXX)
    trap 'bash "$host" "$directory" stop; rm -rf "$directory"' EXIT
    trap 'exit 130' INT TERM
    timeout 60 bash "$host" "$directory" start >"$directory/started" 2>&1 ||
        { cat "$directory/started"; skip "systemd does not boot here"; }
    root=/proc/$(cat "$directory/leader")/root
    install -D -m 644 "$programs/libfake_nvml.so" "$root/opt/ada2-test/nvml/libnvidia-ml.so.1"
    install -m 644 tests/systemd/*.py "$root/opt/ada2-test/"
}

# guest SECONDS COMMAND …: as root in it.
guest() {
    limit=$1
    shift
    timeout -k 5 "$limit" bash "$host" "$directory" run "$@"
}
