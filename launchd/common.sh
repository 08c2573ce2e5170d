# shellcheck shell=sh disable=SC2034
# What install.sh, deploy.sh and rollback.sh share. Sourced, never run.

label=com.ai.gateway
plist=/Library/LaunchDaemons/$label.plist
newsyslog=/etc/newsyslog.d/$label.conf
binary=/usr/local/bin/gateway
previous=$binary.previous
home=/var/lib/gateway
env_file=$home/app/.env
backends=$home/app/backends_config.yaml
manual=/usr/local/share/man/man8/gateway.8
# What these scripts note for the way back: root's alone, because root believes it.
notes="/Library/Application Support/$label"
# The service that this one took the port from, and its plist.
replaced=$notes/replaced-service
# Seconds: a gateway that is asked to stop drains for up to 30 s, and launchd kills it after 45.
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

# The account that the daemon runs as, as its plist says.
account() {
    plutil -extract UserName raw -o - "$plist"
}

# Runs a command as that account, with none of this shell's settings.
as_account() {
    user=$1
    shift
    sudo -u "$user" -H env -i PATH=/usr/bin:/bin "$@"
}

# A service is DOMAIN/LABEL, as launchctl writes it.
is_loaded() { launchctl print "$1" >/dev/null 2>&1; }

# `bootout` returns before the service has ended, and a `bootstrap` meanwhile fails with "5: Input/output error".
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

# Starts a service from its plist, also if it was disabled.
boot_in() {
    launchctl enable "$1"
    launchctl bootstrap "${1%/*}" "$2"
}

plist_of() { launchctl print "$1" 2>/dev/null | sed -n 's/^[[:space:]]*path = //p'; }

process() { launchctl print "system/$label" 2>/dev/null | sed -n 's/^[[:space:]]*pid = //p'; }

# The gateway drains and ends; launchd starts the file that is now in place. Returns once that is another process, since
# the one that drains still answers. Not `kickstart -k`, which does not let it drain.
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
            [ "$waited" -lt "$stop_time" ] || fail "process $before has not ended after $stop_time s"
            waited=$((waited + 1))
            sleep 1
        done
    fi
    # At once, although the one before ended soon after its start (ThrottleInterval). Fails if launchd was quicker.
    launchctl kickstart "system/$label" >/dev/null 2>&1 || true
}

# Who listens on this port: process and command, or nothing.
holder() {
    lsof -nP -iTCP:"$1" -sTCP:LISTEN -Fpc 2>/dev/null | sed -n 's/^[pc]//p' | tr '\n' ' '
}

# Whether other machines can reach what listens on this port.
is_open_to_others() {
    lsof -nP -iTCP:"$1" -sTCP:LISTEN -Fn 2>/dev/null | sed -n 's/^n//p' | grep -qv -e '^127\.' -e '^\[::1\]'
}

# A file that came by browser or AirDrop is quarantined, and launchd would be refused to run it.
release_quarantine() { xattr -d com.apple.quarantine "$1" 2>/dev/null || true; }

# A folder that every account may pass, made with those above it if there is none: a new Mac has no /usr/local/bin.
public_folder() {
    [ -d "$1" ] || (umask 022 && install -d -m 755 -o root -g wheel "$1")
}

# Puts a file in place by rename, so that nothing ever starts half of one; keeps the one before as $3 if given and if it is
# another one.
put() {
    cp "$1" "$2.new"
    chmod "$4" "$2.new"
    chown root:wheel "$2.new"
    if [ -n "$3" ] && [ -f "$2" ] && ! cmp -s "$1" "$2"; then ln -f "$2" "$3"; fi
    mv -f "$2.new" "$2"
}

# The man page, if there is one in this folder.
put_manual() {
    [ -f "$1/gateway.8" ] || return 0
    public_folder "${manual%/*}"
    put "$1/gateway.8" "$manual" '' 644
}

# Whether this binary takes the configuration that is there; what it prints, and why not.
check_config() {
    as_account "$1" "$2" check-config --env-file "$env_file" --backends "$backends" >"$work/config" 2>&1
}

# A value of the configuration that was checked.
configured() {
    sed -n "s/^$1: \"\{0,1\}\([^ \"]*\).*/\1/p" "$work/config"
}

# Where other machines reach it: nowhere, while it listens on loopback.
outside_address() {
    scheme=https
    [ "$(configured GATEWAY_TLS)" = off ] && scheme=http
    case $(configured GATEWAY_HOST) in
        127.* | ::1 | localhost | '') ;;
        *) printf '%s://%s.local:%s' "$scheme" "$(scutil --get LocalHostName)" "$(configured GATEWAY_PORT)" ;;
    esac
}

# The names of what `gateway verify` finds wrong, one a line; `not running` if there is nobody to ask. $3 asks elsewhere.
faults() {
    if as_account "$1" "$2" verify --env-file "$env_file" --backends "$backends" ${3:+--url "$3"} \
        >"$work/verify" 2>&1; then return 0; fi
    if grep -q '^pass' "$work/verify"; then
        sed -n 's/^FAIL  \(.\{15\}\).*/\1/p' "$work/verify" | sed 's/ *$//'
    else
        echo 'not running'
    fi
}

# The same here and, where it listens there, at the address that others use.
all_faults() {
    faults "$1" "$2" >"$work/here"
    cat "$work/here"
    outside=$(outside_address)
    [ -n "$outside" ] && ! grep -qx 'not running' "$work/here" || return 0
    faults "$1" "$2" "$outside" | sed "s|^not running\$|cannot be reached at $outside|"
}

# What is wrong while the graphics host is off, which is no reason to go back.
others_off() { printf 'images backend\nmodels\nno images there\n'; }

# Waits until nothing is wrong that was right before ($2: the faults then).
wait_sound() {
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
# The account passes through it to the binary that is tried, and reads nothing else in it.
work=$(mktemp -d)
chmod 711 "$work"
trap 'rm -rf "$work"' EXIT
