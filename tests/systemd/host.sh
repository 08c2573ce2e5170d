#!/bin/bash
# A real systemd as the first process of namespaces of its own, on a copy-on-write view of this machine's files. Nothing is
# downloaded, and nothing outside the directory changes.
#
#   host.sh DIRECTORY start           prints "running" or "degraded" when it has booted; with the files in the directory DISK, if set
#   host.sh DIRECTORY run COMMAND …   as root in it
#   host.sh DIRECTORY stop
#
# ROOT=DIRECTORY   another system's files in place of this machine's, for example of an Ubuntu 22.04
set -euo pipefail
directory=$1
action=$2
shift 2

# Becomes the first process: mounts, then systemd. What is not masked waits for devices and sessions that are not here.
boot() {
    local top=$1 root=$1/root
    hostname ada2
    ip link set lo up
    mount -t tmpfs -o mode=755 tmpfs "$top"
    mkdir "$top"/{upper,work,root}
    mount -t overlay overlay -o "lowerdir=${ROOT:-/},upperdir=$top/upper,workdir=$top/work" "$root"
    cd "$root"
    # This machine's own services, state and identity are not the guest's.
    rm -rf etc/systemd/system/* var/log/journal var/lib/ada2-sidecar var/lib/private/ada2-sidecar etc/ada2-sidecar
    # A container's policy may forbid packages to start anything.
    rm -f etc/fstab usr/sbin/policy-rc.d
    : >etc/machine-id
    [ -z "${DISK:-}" ] || cp -a "$DISK/." .
    mkdir -p etc/systemd/system etc/tmpfiles.d
    # Emptying /tmp at boot would take the files under test away.
    ln -s /dev/null etc/tmpfiles.d/tmp.conf
    local unit
    for unit in console-getty.service getty.target systemd-logind.service systemd-udevd.service \
        systemd-timesyncd.service systemd-networkd-wait-online.service; do
        ln -s /dev/null "etc/systemd/system/$unit"
    done
    mount -t proc proc proc
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 none sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs dev
    mount -t tmpfs -o mode=755 tmpfs run
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    touch dev/console
    local minor=3 name
    for name in null - zero - full random urandom; do
        [ "$name" = - ] || mknod -m 666 "dev/$name" c 1 "$minor"
        minor=$((minor + 1))
    done
    pivot_root . mnt
    umount -l /mnt
    # Credentials are mounts that must reach the services.
    mount --make-rshared /
    exec env -i container=other PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --unit=multi-user.target </dev/null >/run/console.log 2>&1
}

inside() {
    nsenter -t "$(cat "$directory/leader")" -a -- env -i LANG=C.UTF-8 SYSTEMD_PAGER= SYSTEMD_COLORS=0 \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

case $action in
boot) boot "$directory" ;;
start)
    mkdir -p "$directory/top"
    cgroups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
    if [ -z "$cgroups" ]; then
        cgroups=$directory/cgroups
        mkdir -p "$cgroups"
        mount -t cgroup2 none "$cgroups"
    fi
    group=$cgroups/ada2-test-$$
    mkdir "$group"
    echo "$group" >"$directory/group"
    # The shell that enters the group becomes `unshare`, whose child is systemd.
    bash -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' enter "$group" \
        unshare --mount --cgroup --pid --fork --uts --ipc --net --propagation private \
        bash "$(realpath "$0")" "$directory/top" boot </dev/null >"$directory/boot.log" 2>&1 &
    outer=$!
    for _ in $(seq 200); do
        leader=$(pgrep -P "$outer" -x systemd || true)
        [ -n "$leader" ] && [ -S "/proc/$leader/root/run/systemd/private" ] && break
        kill -0 "$outer" 2>/dev/null || break
        sleep 0.05
    done
    [ -n "${leader:-}" ] || { cat "$directory/boot.log" >&2; exit 1; }
    echo "$leader" >"$directory/leader"
    for _ in $(seq 200); do
        state=$(inside systemctl is-system-running 2>/dev/null || true)
        case $state in running | degraded) echo "$state"; exit 0 ;; esac
        sleep 0.1
    done
    echo "not booted within 20 s: $state" >&2
    exit 1
    ;;
run) inside "$@" ;;
stop)
    [ -f "$directory/leader" ] && kill -KILL "$(cat "$directory/leader")" 2>/dev/null || true
    group=$(cat "$directory/group" 2>/dev/null || true)
    for _ in $(seq 50); do
        [ -n "$group" ] && [ -d "$group" ] || break
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
    done
    if mountpoint -q "$directory/cgroups"; then umount "$directory/cgroups"; fi
    ;;
*) echo "start, run or stop" >&2; exit 2 ;;
esac
