# shellcheck shell=sh disable=SC2034
# Shared by install.sh, deploy.sh and rollback.sh. Sourced, never run.

label=com.ai.gateway
plist=/Library/LaunchDaemons/$label.plist
newsyslog=/etc/newsyslog.d/$label.conf
binary=/usr/local/bin/gateway
previous=$binary.previous
home=/var/lib/gateway
env_file=$home/app/.env
backends=$home/app/backends_config.yaml
manual=/usr/local/share/man/man8/gateway.8
# State that these scripts need to undo their changes. Only root can write it, because root trusts it.
state_dir="/Library/Application Support/$label"
# The service that had the port before, and its plist.
replaced=$state_dir/replaced-service
# In seconds. A gateway drains for up to 30 s before it stops; launchd kills it after 45 s.
stop_time=${GATEWAY_STOP_TIME:-60}
ready_time=${GATEWAY_READY_TIME:-60}

say() { printf '%s\n' "$*"; }
fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" = 0 ] || fail "must run as root: sudo $0"
}

# The daemon's account, from its plist.
account() {
    plutil -extract UserName raw -o - "$plist"
}

# Runs a command as that account, without this shell's environment.
as_account() {
    user=$1
    shift
    sudo -u "$user" -H env -i PATH=/usr/bin:/bin "$@"
}

# A service is DOMAIN/LABEL, as in launchctl.
is_loaded() { launchctl print "$1" >/dev/null 2>&1; }

# `bootout` returns before the service has exited, and until then `bootstrap` fails with "5: Input/output error".
boot_out() {
    is_loaded "$1" || return 0
    launchctl bootout "$1" || true
    waited=0
    while is_loaded "$1"; do
        [ "$waited" -lt "$stop_time" ] || fail "$1 has not stopped after $stop_time s: sudo launchctl print $1"
        waited=$((waited + 1))
        sleep 1
    done
}

# Starts a service from its plist, even if it was disabled.
boot_in() {
    launchctl enable "$1"
    launchctl bootstrap "${1%/*}" "$2"
}

plist_of() { launchctl print "$1" 2>/dev/null | sed -n 's/^[[:space:]]*path = //p'; }

process() { launchctl print "system/$label" 2>/dev/null | sed -n 's/^[[:space:]]*pid = //p'; }

# The gateway drains and exits; launchd starts the new binary. Returns once the new process runs, as the draining one still
# answers. Not `kickstart -k`, which does not let it drain.
restart() {
    if ! is_loaded "system/$label"; then
        boot_in "system/$label" "$plist"
        return
    fi
    before=$(process)
    if [ -n "$before" ]; then
        launchctl kill SIGTERM "system/$label"
        waited=0
        while [ "$(process)" = "$before" ]; do
            [ "$waited" -lt "$stop_time" ] || fail "process $before has not exited after $stop_time s"
            waited=$((waited + 1))
            sleep 1
        done
    fi
    # Without waiting for ThrottleInterval if the old process exited soon after its start. Fails if launchd was quicker.
    launchctl kickstart "system/$label" >/dev/null 2>&1 || true
}

# The process that listens on this port, with its command; empty if none.
port_process() {
    lsof -nP -iTCP:"$1" -sTCP:LISTEN -Fpc 2>/dev/null | sed -n 's/^[pc]//p' | tr '\n' ' '
}

# Whether other machines can reach what listens on this port.
is_open_to_others() {
    lsof -nP -iTCP:"$1" -sTCP:LISTEN -Fn 2>/dev/null | sed -n 's/^n//p' | grep -qv -e '^127\.' -e '^\[::1\]'
}

# Files downloaded by a browser or AirDrop are quarantined, and launchd may not run them.
release_quarantine() { xattr -d com.apple.quarantine "$1" 2>/dev/null || true; }

# Creates a directory that every account may enter: a new Mac has no /usr/local/bin.
public_dir() {
    [ -d "$1" ] || (umask 022 && install -d -m 755 -o root -g wheel "$1")
}

# Installs a file by rename, so that an incomplete one is never started. Keeps the previous file as $3 if given, unless it is the
# same.
install_file() {
    cp "$1" "$2.new"
    chmod "$4" "$2.new"
    chown root:wheel "$2.new"
    if [ -n "$3" ] && [ -f "$2" ] && ! cmp -s "$1" "$2"; then ln -f "$2" "$3"; fi
    mv -f "$2.new" "$2"
}

# Installs the man page, if this directory has one.
install_manual() {
    [ -f "$1/gateway.8" ] || return 0
    public_dir "${manual%/*}"
    install_file "$1/gateway.8" "$manual" '' 644
}

# Whether this binary accepts the configuration. Its output is in $work/config.
check_config() {
    as_account "$1" "$2" check-config --env-file "$env_file" --backends "$backends" >"$work/config" 2>&1
}

# A value of the configuration that was checked last.
configured() {
    sed -n "s/^$1: \"\{0,1\}\([^ \"]*\).*/\1/p" "$work/config"
}

# The address for other machines; empty if it listens on loopback.
outside_address() {
    scheme=https
    [ "$(configured GATEWAY_TLS)" = off ] && scheme=http
    case $(configured GATEWAY_HOST) in
        127.* | ::1 | localhost | '') ;;
        *) printf '%s://%s.local:%s' "$scheme" "$(scutil --get LocalHostName)" "$(configured GATEWAY_PORT)" ;;
    esac
}

# The names of failed checks of `gateway verify`, one per line; `not running` if nothing answers. $3 is another address.
faults() {
    if as_account "$1" "$2" verify --env-file "$env_file" --backends "$backends" ${3:+--url "$3"} \
        >"$work/verify" 2>&1; then return 0; fi
    if grep -q '^pass' "$work/verify"; then
        sed -n 's/^FAIL  \(.\{15\}\).*/\1/p' "$work/verify" | sed 's/ *$//'
    else
        echo 'not running'
    fi
}

# The same here and, if other machines can reach it, at their address.
all_faults() {
    faults "$1" "$2" >"$work/here"
    cat "$work/here"
    outside=$(outside_address)
    [ -n "$outside" ] && ! grep -qx 'not running' "$work/here" || return 0
    faults "$1" "$2" "$outside" | sed "s|^not running\$|cannot be reached at $outside|"
}

# Checks that fail while the GPU host is off, which is no reason to roll back.
expected_faults() { printf 'images backend\nmodels\nno images there\n'; }

# Waits until no check fails that passed before ($2: the checks that failed then).
wait_until_good() {
    waited=0
    while :; do
        all_faults "$1" "$binary" >"$work/now"
        sort -u "$work/now" >"$work/sorted"
        sort -u "$2" | comm -23 "$work/sorted" - >"$work/new"
        if ! [ -s "$work/new" ]; then return 0; fi
        if [ "$waited" -ge "$ready_time" ]; then
            cat "$work/verify"
            return 1
        fi
        waited=$((waited + 1))
        sleep 1
    done
}

umask 077
# The account enters it to run the new binary, but can read nothing else in it.
work=$(mktemp -d)
chmod 711 "$work"
trap 'rm -rf "$work"' EXIT
