# shellcheck shell=sh disable=SC2154
# Taking a job away from launchd, and bringing it back. Its plist is moved aside, not deleted. Sourced by install.sh and
# rollback.sh after common.sh.

removed=$notes/removed-jobs

make_notes() { install -d -m 755 -o root -g wheel "$notes" "$removed"; }

check_job() {
    case $1 in
        '' | -* | *[!A-Za-z0-9._-]*) fail "$1 is not the label of a job" ;;
        "$label") fail "$label is the gateway: sudo ./rollback.sh old stops it" ;;
        com.apple.*) fail "$1 is macOS's own" ;;
    esac
}

# Where a job is loaded: by the system, or for the person who called sudo. Nothing if by neither.
loaded_in() {
    for domain in system ${SUDO_UID:+"gui/$SUDO_UID"}; do
        if is_loaded "$domain/$1"; then
            say "$domain"
            return
        fi
    done
}

# A job that is not loaded has a plist where such files are kept, under its label.
kept_plist() {
    person=$(dscl . -read "/Users/${SUDO_USER:-root}" NFSHomeDirectory 2>/dev/null | sed 's/^NFSHomeDirectory: //')
    for folder in /Library/LaunchDaemons /Library/LaunchAgents "$person/Library/LaunchAgents"; do
        if [ -f "$folder/$1.plist" ]; then
            say "$folder/$1.plist"
            return
        fi
    done
}

remove_job() {
    check_job "$1"
    [ ! -e "$removed/$1" ] || fail "$1 was removed already: sudo ./rollback.sh job $1 brings it back"
    domain=$(loaded_in "$1")
    if [ -n "$domain" ]; then path=$(plist_of "$domain/$1"); else path=$(kept_plist "$1"); fi
    [ -f "$path" ] || fail "launchd knows no job $1 with a plist. Jobs: sudo launchctl list, and without sudo those of a person"
    make_notes
    printf '%s\n%s\n' "$domain" "$path" >"$removed/$1"
    if [ -n "$domain" ]; then
        boot_out "$domain/$1"
        launchctl disable "$domain/$1"
    fi
    mv "$path" "$path.removed"
    say "$1 is stopped, and its plist is $path.removed; sudo ./rollback.sh job $1 brings it back"
}

restore_job() {
    check_job "$1"
    [ -f "$removed/$1" ] || fail "install.sh --remove-job has removed no job $1"
    domain=$(sed -n 1p "$removed/$1")
    path=$(sed -n 2p "$removed/$1")
    [ ! -e "$path" ] || fail "there is a new $path; move it away first, the removed one is $path.removed"
    mv "$path.removed" "$path"
    [ -z "$domain" ] || boot_in "$domain/$1" "$path"
    rm "$removed/$1"
    say "$1 is back as it was"
}
