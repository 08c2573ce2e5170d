"""What the files of the machine are, to tell what a package has left behind."""

import hashlib
import pathlib
import subprocess

# /root and /home are not looked at: nothing of ours writes there, and others who use this machine do.
LOOKED_AT = ["/etc", "/usr", "/var", "/opt", "/srv", "/boot"]
APART = {
    "/opt/ada2-test": "the files of these checks",
    "/var/log": "logs stay, as the policy of Debian wants it",
    "/var/lib/dpkg": "dpkg's own database and its backups",
    "/var/cache": "other programs' caches: man-db indexes the manual page, apt its lists",
    "/var/lib/systemd": "systemd's own: timers, the random seed",
    "/var/lib/nginx": "nginx's working directories",
    "/var/tmp": "PrivateTmp= of whatever runs; ours is looked for below",
}
# What is made for a unit while it runs; the rest of these directories is systemd's, and others' files.
RUNTIME = {"/run": "*ada2*", "/dev/shm": "*ada2*", "/tmp": "systemd-private-*ada2*", "/var/tmp": "systemd-private-*ada2*"}


def tree():
    """Path to what is there. A directory's own size and time are not what it holds."""
    pruned = [part for path in APART for part in ("-path", path, "-o")][:-1]
    shown = r"%p\t%y\t%M\t%U:%G\t%s\t%T@\t%l\0"
    command = ["find", *LOOKED_AT, "-xdev", "(", *pruned, ")", "-prune", "-o", "-printf", shown]
    found = {}
    for line in subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout.decode(errors="replace").split("\0"):
        if not line:
            continue
        path, kind, mode, owner, size, changed, target = line.split("\t", 6)
        if kind == "f":
            found[path] = (kind, mode, owner, size, digest(path) if path.startswith("/etc/") else changed)
        else:
            found[path] = (kind, mode, owner, target)
    for directory, name in RUNTIME.items():
        # systemd 249 keeps a directory for each unit's mounts until the next boot.
        command = ["find", directory, "-path", "/run/systemd/propagate", "-prune", "-o", "-name", name, "-print"]
        ours = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.update((path, "ours") for path in ours.stdout.splitlines())
    return found


def digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def differences(before, after):
    """A line for each path that is new, gone or otherwise."""
    lines = [f"new: {path}" for path in after.keys() - before.keys()]
    lines += [f"gone: {path}" for path in before.keys() - after.keys()]
    both = before.keys() & after.keys()
    lines += [f"changed: {path}: {before[path]} {after[path]}" for path in both if before[path] != after[path]]
    return sorted(lines)
