#!/bin/sh
# `ada2-sidecar doctor` on a good host and on broken ones, in a real systemd: `tests/systemd/doctor.sh [names of checks]`.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=boot.sh
. tests/systemd/boot.sh

can_boot "doctor on a real systemd"
boot
units=${UNITS:-systemd}
install -m 755 "$programs/ada2-sidecar" "$root/usr/bin/ada2-sidecar"
install -m 644 "$units/ada2-sidecar.service" "$units/ada2-sidecar.socket" "$root/usr/lib/systemd/system/"
install -m 644 tests/fixtures/invokeai/models.json tests/fixtures/invokeai/openapi.json "$root/opt/ada2-test/"
guest 400 python3 -B /opt/ada2-test/doctor.py "$@"
