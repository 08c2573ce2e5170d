# shellcheck shell=sh disable=SC2154
# Removes a job from launchd, and restores it. Its plist is moved aside, not deleted. Sourced by install.sh and rollback.sh after
# common.sh.

removed=$state_dir/removed-jobs

create_state_dir() { install -d -m 755 -o root -g wheel "$state_dir" "$removed"; }

check_job() {
    case $1 in
        '' | -* | *[!A-Za-z0-9._-]*) fail "$1 is not the label of a job" ;;
        "$label") fail "$label is the gateway: sudo ./rollback.sh old stops it" ;;
        com.apple.*) fail "$1 belongs to macOS" ;;
    esac
}

# The domain that a job is loaded in: the system, or the user who called sudo; empty if neither.
loaded_in() {
    for domain in system ${SUDO_UID:+"gui/$SUDO_UID"}; do
        if is_loaded "$domain/$1"; then
            say "$domain"
            return
        fi
    done
}

# The plist of a job that is not loaded, found by its label.
find_plist() {
    user_home=$(dscl . -read "/Users/${SUDO_USER:-root}" NFSHomeDirectory 2>/dev/null | sed 's/^NFSHomeDirectory: //')
    for dir in /Library/LaunchDaemons /Library/LaunchAgents "$user_home/Library/LaunchAgents"; do
        if [ -f "$dir/$1.plist" ]; then
            say "$dir/$1.plist"
            return
        fi
    done
}

remove_job() {
    check_job "$1"
    [ ! -e "$removed/$1" ] || fail "$1 was removed already; undo: sudo ./rollback.sh job $1"
    domain=$(loaded_in "$1")
    if [ -n "$domain" ]; then path=$(plist_of "$domain/$1"); else path=$(find_plist "$1"); fi
    [ -f "$path" ] || fail "launchd knows no job $1 with a plist. Jobs: sudo launchctl list, and without sudo those of a user"
    create_state_dir
    printf '%s\n%s\n' "$domain" "$path" >"$removed/$1"
    if [ -n "$domain" ]; then
        boot_out "$domain/$1"
        launchctl disable "$domain/$1"
    fi
    mv "$path" "$path.removed"
    say "$1 is stopped, and its plist is now $path.removed; undo: sudo ./rollback.sh job $1"
}

restore_job() {
    check_job "$1"
    [ -f "$removed/$1" ] || fail "install.sh --remove-job has not removed a job $1"
    domain=$(sed -n 1p "$removed/$1")
    path=$(sed -n 2p "$removed/$1")
    [ ! -e "$path" ] || fail "there is a new $path; move it away first (the removed one is $path.removed)"
    mv "$path.removed" "$path"
    [ -z "$domain" ] || boot_in "$domain/$1" "$path"
    rm "$removed/$1"
    say "$1 is restored"
}
