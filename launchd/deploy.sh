#!/bin/sh
# Puts a new binary in the place of the one that runs, and the one before back by itself if the new one is worse.
#
#   sudo ./deploy.sh [BINARY]     default: the gateway beside this script
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=common.sh
. "$here/common.sh"

new=${1:-$here/gateway}
need_root
[ -f "$new" ] || fail "there is no file $new"
[ -f "$plist" ] || fail "there is no $plist: run install.sh first"
user=$(account)

release_quarantine "$new"
cp "$new" "$work/gateway"
chmod 755 "$work/gateway"
version=$(as_account "$user" "$work/gateway" --version) || fail "$new does not run on this Mac: file $new"
if ! check_config "$user" "$work/gateway"; then
    cat "$work/config" >&2
    fail "$version does not accept the configuration; the gateway that runs was not touched"
fi

all_faults "$user" "$binary" >"$work/before"
# Nothing to compare with.
if grep -qx 'not running' "$work/before"; then others_off >"$work/before"; fi
if cmp -s "$work/gateway" "$binary"; then
    restart
    wait_sound "$user" "$work/before" || fail "$version was installed already and does not start, or fails the checks above; \
its log: $home/logs/gateway.log and gateway.stderr.log"
    say "$version was installed already; it was restarted"
    exit 0
fi
put "$work/gateway" "$binary" "$previous" 755
restart
if wait_sound "$user" "$work/before"; then
    put_manual "$(dirname "$new")"
    say "$version runs; the one before is $previous (./rollback.sh previous)"
    exit 0
fi
say "$version fails checks that the version before passed:"
cat "$work/new"
put "$previous" "$binary" '' 755
restart
if wait_sound "$user" "$work/before"; then
    fail "the previous gateway runs again"
fi
fail "the previous gateway is back in place and does not start either, or fails the checks above; \
its log: $home/logs/gateway.log and gateway.stderr.log"
