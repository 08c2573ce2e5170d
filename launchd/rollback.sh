#!/bin/sh
# Undoes changes.
#
#   sudo ./rollback.sh previous      the binary before the last deployment
#   sudo ./rollback.sh mock          placeholder images without a GPU (IMAGES_BACKEND=mock in the env file)
#   sudo ./rollback.sh http          images from the GPU again
#   sudo ./rollback.sh old [PLIST]   the service that install.sh --replace stopped, or the one with this plist
#   sudo ./rollback.sh job LABEL     the job that install.sh --remove-job removed
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=common.sh
. "$here/common.sh"
# shellcheck source=jobs.sh
. "$here/jobs.sh"

need_root
if [ "${1:-}" = job ]; then
    restore_job "${2:?job needs the label of a job that install.sh --remove-job removed}"
    exit 0
fi
[ -f "$plist" ] || fail "$plist does not exist: nothing is installed"
user=$(account)

# Sets IMAGES_BACKEND in the env file, keeping its owner and mode, and restarts the gateway.
images_backend() {
    grep -v '^[[:space:]]*\(export[[:space:]]\{1,\}\)\{0,1\}IMAGES_BACKEND=' "$env_file" >"$work/env" || true
    printf 'IMAGES_BACKEND=%s\n' "$1" >>"$work/env"
    cp -p "$env_file" "$env_file.before"
    cat "$work/env" >"$env_file"
    if ! check_config "$user" "$binary"; then
        cat "$env_file.before" >"$env_file"
        cat "$work/config" >&2
        fail "the configuration is not accepted; it was not changed"
    fi
    rm -f "$env_file.before"
    restart
}

# Stops the gateway, starts the service that had its port before, and waits until that one listens.
old_service() {
    path=$1
    if [ -n "$path" ]; then
        old=$(plutil -extract Label raw -o - "$path") || fail "$path is not the plist of a service"
        case $path in
            */LaunchAgents/*) old=gui/${SUDO_UID:?run it with sudo as the user whose agent it is}/$old ;;
            *) old=system/$old ;;
        esac
    else
        [ -f "$replaced" ] || fail "install.sh did not replace a service; give its plist: sudo ./rollback.sh old PLIST"
        old=$(sed -n 1p "$replaced")
        path=$(sed -n 2p "$replaced")
        [ -f "$path" ] || fail "the plist of $old, $path, does not exist; restore it, or give another one: sudo ./rollback.sh old PLIST"
    fi
    [ "$old" != "system/$label" ] || fail "$path is the plist of the gateway itself"
    check_config "$user" "$binary" || true
    port=$(configured GATEWAY_PORT)
    boot_out "system/$label"
    launchctl disable "system/$label"
    is_loaded "$old" || boot_in "$old" "$path"
    waited=0
    while [ -z "$(port_process "${port:-8800}")" ]; do
        [ "$waited" -lt "$ready_time" ] || fail "the gateway is stopped; $old was started and does not listen on ${port:-8800}: \
sudo launchctl print $old. To start the gateway again: sudo ./install.sh --replace ${old##*/}"
        waited=$((waited + 1))
        sleep 1
    done
    say "$old runs again; the gateway is stopped (undo: sudo ./install.sh --replace ${old##*/})"
    exit 0
}

case ${1:-} in
    previous)
        [ -f "$previous" ] || fail "$previous does not exist: no binary was replaced"
        check_config "$user" "$previous" || {
            cat "$work/config" >&2
            fail "the previous gateway does not accept the configuration; nothing was changed"
        }
        cp "$previous" "$work/gateway"
        install_file "$work/gateway" "$binary" "$previous" 755
        restart
        ;;
    mock) images_backend mock ;;
    http) images_backend http_openai_images ;;
    old) old_service "${2:-}" ;;
    *) fail "usage: sudo ./rollback.sh previous | mock | http | old [PLIST] | job LABEL" ;;
esac

check_config "$user" "$binary" || fail "the configuration is not accepted: $binary check-config"
expected_faults >"$work/before"
wait_until_good "$user" "$work/before" || fail "the gateway did not start, or fails the checks above; its log: $home/logs/gateway.log and gateway.stderr.log"
cat "$work/verify"
