#!/bin/sh
# Installs the gateway as a daemon, or brings plist and log rotation up to date: account, folders, configuration where
# there is none, binary, service. Whatever is there already stays as it is, with its owner.
#
#   sudo ./install.sh [--replace LABEL]
#
# --replace LABEL   the service that holds the port now, for example the old gateway's: stopped once the new binary has
#                   accepted the configuration, started again if the new one does not come up. Its plist stays.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=common.sh
. "$here/common.sh"

replace=
case ${1:-} in
    '') ;;
    --replace) replace=${2:?--replace needs the label of a service, as in: launchctl list} ;;
    *) fail "unknown argument $1; usage: sudo ./install.sh [--replace LABEL]" ;;
esac
need_root

# An account that the old gateway has is taken; else a role account with a number of macOS's range for those.
make_account() {
    for user in gateway _gateway; do
        if id -u "$user" >/dev/null 2>&1; then
            say "$user"
            return
        fi
    done
    number=200
    dscl . -list /Users UniqueID >"$work/users"
    while awk '{print $2}' "$work/users" | grep -qx "$number"; do
        number=$((number + 1))
        [ "$number" -le 400 ] || fail "no account number from 200 to 400 is free: dscl . -list /Users UniqueID"
    done
    sysadminctl -addUser _gateway -roleAccount -UID "$number" -fullName "AI gateway" -shell /usr/bin/false \
        -home "$home" >&2 || fail "sysadminctl could not make the account _gateway"
    say _gateway
}

user=$(make_account)
# Whoever owns the Mac is in this group, and may read log and pictures.
group="admin"

for folder in "$home" "$home/app" "$home/data" "$home/logs"; do
    [ -d "$folder" ] || install -d -m 750 -o "$user" -g "$group" "$folder"
done
for folder in "$home/data" "$home/logs"; do
    as_account "$user" /bin/test -w "$folder" ||
        fail "$user cannot write $folder. If nothing else needs it: sudo chown $user $folder"
done

release_quarantine "$here/gateway"
if [ ! -f "$env_file" ]; then
    token=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
    sed "s/^GATEWAY_BEARER_TOKEN=.*/GATEWAY_BEARER_TOKEN=$token/" "$here/ada2-images.env.example" >"$work/env"
    install -m 600 -o "$user" -g "$group" "$work/env" "$env_file"
    say "made $env_file with a new token"
fi
if [ ! -f "$backends" ]; then
    install -m 644 -o "$user" -g "$group" "$here/backends_config.example.yaml" "$backends"
    say "made $backends: read it, it names the hosts behind the gateway"
fi

# The binary is tried where the account can reach it, before anything that runs is touched.
cp "$here/gateway" "$work/gateway"
chmod 755 "$work/gateway"
if ! check_config "$user" "$work/gateway"; then
    cat "$work/config" >&2
    fail "the configuration is not accepted; nothing was installed"
fi

holder=$(lsof -nP -iTCP:"$(configured GATEWAY_PORT)" -sTCP:LISTEN -Fpc 2>/dev/null | sed -n 's/^[pc]//p' | tr '\n' ' ')
if [ -n "$holder" ] && [ -z "$replace" ] && ! is_loaded "$label"; then
    fail "port $(configured GATEWAY_PORT) is held by process $holder; its service is in: sudo launchctl list. \
Then: sudo ./install.sh --replace LABEL"
fi

sed "s/<string>_gateway</<string>$user</" "$here/$label.plist" >"$work/plist"
sed "s/_gateway/$user/" "$here/$label.newsyslog.conf" >"$work/newsyslog"
: >"$work/before"
if [ -f "$plist" ]; then faults "$user" "$binary" >"$work/before"; fi
put "$work/gateway" "$binary" "$previous" 755
put "$work/plist" "$plist" '' 644
put "$work/newsyslog" "$newsyslog" '' 644

if [ -n "$replace" ]; then
    path=$(launchctl print "system/$replace" | sed -n 's/^[[:space:]]*path = //p')
    [ -f "$path" ] || fail "the service $replace has no plist that could start it again: launchctl print system/$replace"
    printf '%s\n%s\n' "$replace" "$path" >"$replaced"
    boot_out "$replace"
    launchctl disable "system/$replace"
fi
boot_out "$label"
boot_in "$label" "$plist"

# A first installation may meet a graphics host that is off; all else must be right.
printf 'images backend\nmodels\nno images there\n' >>"$work/before"
if ! wait_sound "$user" "$work/before"; then
    if [ -n "$replace" ]; then
        say "the gateway does not come up: $replace takes the port again"
        "$here/rollback.sh" old
    fi
    fail "the gateway does not come up; its log: $home/logs/gateway.log and gateway.stderr.log"
fi
cat "$work/verify"
say "installed. Next: sudo -u $user $binary ca   (how other programs and people trust it)"
