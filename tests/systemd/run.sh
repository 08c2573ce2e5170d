#!/bin/sh
# The units in a real systemd: `tests/systemd/run.sh [names of checks]`. See README.md.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=boot.sh
. tests/systemd/boot.sh

can_boot "the units in a real systemd"
boot
units=${UNITS:-systemd}
install -m 755 "$programs/ada2-sidecar" "$root/usr/bin/ada2-sidecar"
install -m 644 "$units/ada2-sidecar.service" "$units/ada2-sidecar.socket" "$root/usr/lib/systemd/system/"
guest 240 python3 -B /opt/ada2-test/checks.py "$@"
