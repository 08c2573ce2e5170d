#!/bin/sh
# Installs the gateway as a daemon, or brings plist and log rotation up to date: account, folders, configuration where
# there is none, binary, service. Whatever is there already stays as it is, with its owner.
#
#   sudo ./install.sh [--replace LABEL]
#   sudo ./install.sh --remove-job LABEL
#
# --replace LABEL      the service that holds the port now, for example the old gateway's: stopped once the new binary has
#                      accepted the configuration, started again if the new one does not come up. Its plist stays.
# --remove-job LABEL   nothing but this: stops a job that is not needed any more, for example one that made pictures on this
#                      Mac, and moves its plist aside. Back: sudo ./rollback.sh job LABEL
set -eu
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=common.sh
. "$here/common.sh"
# shellcheck source=jobs.sh
. "$here/jobs.sh"

replace=
case ${1:-} in
    '') need_root ;;
    --replace)
        replace=${2:?--replace needs the label of a service, as in: sudo launchctl list}
        need_root
        ;;
    --remove-job)
        job=${2:?--remove-job needs the label of a job, as in: sudo launchctl list}
        need_root
        remove_job "$job"
        exit 0
        ;;
    *) fail "unknown argument $1; usage: sudo ./install.sh [--replace LABEL | --remove-job LABEL]" ;;
esac

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

public_folder "${home%/*}"
public_folder "${binary%/*}"
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

held=$(holder "$(configured GATEWAY_PORT)")
if [ -n "$held" ] && [ -z "$replace" ] && ! is_loaded "system/$label"; then
    fail "port $(configured GATEWAY_PORT) is held by process $held; its service is in: sudo launchctl list. \
Then: sudo ./install.sh --replace LABEL"
fi

if [ -n "$replace" ]; then
    domain=$(loaded_in "$replace")
    [ -n "$domain" ] || fail "launchd runs no $replace. Services: sudo launchctl list, and without sudo those of a person"
    path=$(plist_of "$domain/$replace")
    [ -f "$path" ] || fail "$replace has no plist that could start it again: sudo launchctl print $domain/$replace"
    if grep -q '^GATEWAY_HOST: .*# default' "$work/config" && is_open_to_others "$(configured GATEWAY_PORT)"; then
        fail "other machines reach $replace, and the new gateway would listen on this Mac alone; nothing was installed. \
Add GATEWAY_HOST=0.0.0.0 to $env_file (or GATEWAY_HOST=127.0.0.1 if that is meant), then run this again"
    fi
fi

sed "s/<string>_gateway</<string>$user</" "$here/$label.plist" >"$work/plist"
sed "s/_gateway/$user/" "$here/$label.newsyslog.conf" >"$work/newsyslog"
: >"$work/before"
if [ -f "$plist" ]; then all_faults "$user" "$binary" >"$work/before"; fi
# One that is stopped is nothing to compare with.
if grep -qx 'not running' "$work/before"; then : >"$work/before"; fi
put_manual "$here"
put "$work/gateway" "$binary" "$previous" 755
put "$work/plist" "$plist" '' 644
put "$work/newsyslog" "$newsyslog" '' 644

if [ -n "$replace" ]; then
    make_notes
    printf '%s\n%s\n' "$domain/$replace" "$path" >"$replaced"
    boot_out "$domain/$replace"
    launchctl disable "$domain/$replace"
fi
boot_out "system/$label"
boot_in "system/$label" "$plist"

# A first installation may meet a graphics host that is off; all else must be right.
others_off >>"$work/before"
if ! wait_sound "$user" "$work/before"; then
    if [ -n "$replace" ]; then
        say "the gateway did not start, or fails the checks below: $replace gets the port back"
        "$here/rollback.sh" old
    fi
    cat "$work/new"
    if [ -f "$previous" ]; then say "the binary before: sudo ./rollback.sh previous"; fi
    fail "the gateway did not start, or fails the checks above; its log: $home/logs/gateway.log and gateway.stderr.log"
fi
cat "$work/verify"
say "installed. Next: sudo -u $user $binary ca   (how other programs and people trust it)"
