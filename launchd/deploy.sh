#!/bin/sh
# Replaces the running binary, and restores the previous one automatically if the new one fails checks that passed before.
#
#   sudo ./deploy.sh [BINARY]     default: the gateway beside this script
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=common.sh
. "$here/common.sh"

new=${1:-$here/gateway}
need_root
[ -f "$new" ] || fail "$new does not exist"
[ -f "$plist" ] || fail "$plist does not exist: run install.sh first"
user=$(account)

release_quarantine "$new"
cp "$new" "$work/gateway"
chmod 755 "$work/gateway"
version=$(as_account "$user" "$work/gateway" --version) || fail "$new does not run on this Mac: file $new"
if ! check_config "$user" "$work/gateway"; then
    cat "$work/config" >&2
    fail "$version does not accept the configuration; the running gateway was not changed"
fi

all_faults "$user" "$binary" >"$work/before"
# No basis for comparison.
if grep -qx 'not running' "$work/before"; then expected_faults >"$work/before"; fi
if cmp -s "$work/gateway" "$binary"; then
    restart
    wait_until_good "$user" "$work/before" || fail "$version was installed already and does not start, or fails the checks above; \
its log: $home/logs/gateway.log and gateway.stderr.log"
    say "$version was installed already; it was restarted"
    exit 0
fi
install_file "$work/gateway" "$binary" "$previous" 755
restart
if wait_until_good "$user" "$work/before"; then
    install_manual "$(dirname "$new")"
    say "$version is running; the previous binary is $previous (./rollback.sh previous)"
    exit 0
fi
say "$version fails checks that the previous version passed:"
cat "$work/new"
install_file "$previous" "$binary" '' 755
restart
if wait_until_good "$user" "$work/before"; then
    fail "the previous gateway runs again"
fi
fail "the previous gateway is back in place and does not start either, or fails the checks above; \
its log: $home/logs/gateway.log and gateway.stderr.log"
