#!/bin/sh
# The ways back.
#
#   sudo ./rollback.sh previous   the binary before the last deployment
#   sudo ./rollback.sh mock       placeholder pictures, no GPU asked (IMAGES_BACKEND=mock in the env file)
#   sudo ./rollback.sh http       pictures from the GPU again
#   sudo ./rollback.sh old        the service that install.sh --replace stopped
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=common.sh
. "$here/common.sh"

need_root
[ -f "$plist" ] || fail "there is no $plist: nothing is installed"
user=$(account)

# Sets IMAGES_BACKEND in the env file, keeping its owner and mode, and has the gateway read it again.
images_backend() {
    grep -v '^[[:space:]]*\(export[[:space:]]\{1,\}\)\{0,1\}IMAGES_BACKEND=' "$env_file" >"$work/env" || true
    printf 'IMAGES_BACKEND=%s\n' "$1" >>"$work/env"
    cp -p "$env_file" "$env_file.before"
    cat "$work/env" >"$env_file"
    if ! check_config "$user" "$binary"; then
        cat "$env_file.before" >"$env_file"
        cat "$work/config" >&2
        fail "the configuration is not accepted; it is as it was"
    fi
    rm -f "$env_file.before"
    restart
}

case ${1:-} in
    previous)
        [ -f "$previous" ] || fail "there is no $previous: nothing was deployed over"
        check_config "$user" "$previous" || {
            cat "$work/config" >&2
            fail "the previous gateway does not accept the configuration; nothing was changed"
        }
        cp "$previous" "$work/gateway"
        put "$work/gateway" "$binary" "$previous" 755
        restart
        ;;
    mock) images_backend mock ;;
    http) images_backend http_openai_images ;;
    old)
        [ -f "$replaced" ] || fail "install.sh replaced no service"
        old=$(sed -n 1p "$replaced")
        path=$(sed -n 2p "$replaced")
        boot_out "$label"
        launchctl disable "system/$label"
        boot_in "$old" "$path"
        say "$old runs again; the gateway is stopped (sudo ./install.sh --replace $old brings it back)"
        exit 0
        ;;
    *) fail "usage: sudo ./rollback.sh previous | mock | http | old" ;;
esac

check_config "$user" "$binary" || fail "the configuration is not accepted: $binary check-config"
printf 'images backend\nmodels\nno images there\n' >"$work/before"
wait_sound "$user" "$work/before" || fail "it does not come up; its log: $home/logs/gateway.log"
cat "$work/verify"
