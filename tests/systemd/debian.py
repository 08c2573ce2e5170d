"""The package, its versions to come, and dpkg."""

import functools
import pathlib
import shutil
import subprocess
import tempfile

from guest import must, run

BUILT = pathlib.Path("/opt/ada2-test/ada2-sidecar.deb")
# Binaries of versions to come.
REFUSES = """#!/bin/sh
# Knows a setting no longer.
if [ "$1" = check-config ] && grep -q '^max_n:' /etc/ada2-sidecar/config.yaml; then
    echo '/etc/ada2-sidecar/config.yaml: max_n: this setting is gone' >&2
    exit 78
fi
exec /opt/ada2-test/ada2-sidecar "$@"
"""
BREAKS = """#!/bin/sh
[ "$1" != serve ] || exit 70
exec /opt/ada2-test/ada2-sidecar "$@"
"""


@functools.cache
def version_built():
    return must("dpkg-deb", "-f", str(BUILT), "Version").strip()


def packaged(version, binary=None):
    """The package in another version, and with another binary."""
    directory = pathlib.Path(tempfile.mkdtemp())
    must("dpkg-deb", "-R", str(BUILT), str(directory / "root"))
    control = directory / "root/DEBIAN/control"
    control.write_text(control.read_text().replace(f"Version: {version_built()}", f"Version: {version}"))
    if binary:
        (directory / "root/usr/bin/ada2-sidecar").write_text(binary)
    file = BUILT.parent / f"{version}.deb"
    must("dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", str(directory / "root"), str(file))
    shutil.rmtree(directory)
    return file


def dpkg(*arguments):
    """Nobody is there to answer a question."""
    command = ["dpkg", "--force-unsafe-io", *map(str, arguments)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
    )
    return done.returncode, done.stdout


def install(file):
    code, text = dpkg("-i", file)
    assert code == 0, text
    return text


def state():
    """dpkg's three letters and the version."""
    return run("dpkg-query", "-W", "-f=${db:Status-Abbrev}${Version}", "ada2-sidecar")[1]
