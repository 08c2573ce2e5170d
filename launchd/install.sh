#!/bin/sh
# Installs the gateway as a daemon, or updates its plist and log rotation: account, directories, configuration if there is none,
# binary, service. Existing directories and configuration stay unchanged.
#
#   sudo ./install.sh [--replace LABEL]
#   sudo ./install.sh --remove-job LABEL
#
# --replace LABEL      the service that holds the port now, such as the old gateway: stopped once the new binary has accepted
#                      the configuration, started again if the new one does not start. Its plist stays.
# --remove-job LABEL   only stops a job that is no longer needed, such as one that made images on this Mac, and moves its plist
#                      aside. Undo: sudo ./rollback.sh job LABEL
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

# Uses the old gateway's account; else creates a role account with a number from macOS's range for them.
find_or_create_account() {
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
        -home "$home" >&2 || fail "sysadminctl could not create the account _gateway"
    say _gateway
}

user=$(find_or_create_account)
# The Mac's owners are in this group, and may read log and images.
group="admin"

public_dir "${home%/*}"
public_dir "${binary%/*}"
for dir in "$home" "$home/app" "$home/data" "$home/logs"; do
    [ -d "$dir" ] || install -d -m 750 -o "$user" -g "$group" "$dir"
done
for dir in "$home/data" "$home/logs"; do
    as_account "$user" /bin/test -w "$dir" ||
        fail "$user cannot write $dir. If nothing else needs it: sudo chown $user $dir"
done

release_quarantine "$here/gateway"
if [ ! -f "$env_file" ]; then
    token=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
    sed "s/^GATEWAY_BEARER_TOKEN=.*/GATEWAY_BEARER_TOKEN=$token/" "$here/ada2-images.env.example" >"$work/env"
    install -m 600 -o "$user" -g "$group" "$work/env" "$env_file"
    say "created $env_file with a new token"
fi
if [ ! -f "$backends" ]; then
    install -m 644 -o "$user" -g "$group" "$here/backends_config.example.yaml" "$backends"
    say "created $backends: check it, it names the backends"
fi

# The new binary is tried, where the account can reach it, before anything is changed.
cp "$here/gateway" "$work/gateway"
chmod 755 "$work/gateway"
if ! check_config "$user" "$work/gateway"; then
    cat "$work/config" >&2
    fail "the configuration is not accepted; nothing was installed"
fi

held=$(port_process "$(configured GATEWAY_PORT)")
if [ -n "$held" ] && [ -z "$replace" ] && ! is_loaded "system/$label"; then
    fail "port $(configured GATEWAY_PORT) is held by process $held; its service is in: sudo launchctl list. \
Then: sudo ./install.sh --replace LABEL"
fi

if [ -n "$replace" ]; then
    domain=$(loaded_in "$replace")
    [ -n "$domain" ] || fail "launchd does not run $replace. Services: sudo launchctl list, and without sudo those of a user"
    path=$(plist_of "$domain/$replace")
    [ -f "$path" ] || fail "$replace has no plist to start it again with: sudo launchctl print $domain/$replace"
    if grep -q '^GATEWAY_HOST: .*# default' "$work/config" && is_open_to_others "$(configured GATEWAY_PORT)"; then
        fail "other machines reach $replace, but the new gateway would only listen on this Mac; nothing was installed. \
Add GATEWAY_HOST=0.0.0.0 to $env_file (or GATEWAY_HOST=127.0.0.1 if that is intended), then run this again"
    fi
fi

sed "s/<string>_gateway</<string>$user</" "$here/$label.plist" >"$work/plist"
sed "s/_gateway/$user/" "$here/$label.newsyslog.conf" >"$work/newsyslog"
: >"$work/before"
if [ -f "$plist" ]; then all_faults "$user" "$binary" >"$work/before"; fi
# A gateway that is stopped is no basis for comparison.
if grep -qx 'not running' "$work/before"; then : >"$work/before"; fi
install_manual "$here"
install_file "$work/gateway" "$binary" "$previous" 755
install_file "$work/plist" "$plist" '' 644
install_file "$work/newsyslog" "$newsyslog" '' 644

if [ -n "$replace" ]; then
    create_state_dir
    printf '%s\n%s\n' "$domain/$replace" "$path" >"$replaced"
    boot_out "$domain/$replace"
    launchctl disable "$domain/$replace"
fi
boot_out "system/$label"
boot_in "system/$label" "$plist"

# The GPU host may be off; everything else must be right.
expected_faults >>"$work/before"
if ! wait_until_good "$user" "$work/before"; then
    if [ -n "$replace" ]; then
        say "the gateway did not start, or fails the checks below: $replace gets the port back"
        "$here/rollback.sh" old
    fi
    cat "$work/new"
    if [ -f "$previous" ]; then say "back to the previous binary: sudo ./rollback.sh previous"; fi
    fail "the gateway did not start, or fails the checks above; its log: $home/logs/gateway.log and gateway.stderr.log"
fi
cat "$work/verify"
say "installed. Next: sudo -u $user $binary ca   (how to make clients trust it)"
