#!/bin/sh
# The life of the Debian package in a real systemd, behind a real nginx: `tests/systemd/package.sh`. See README.md.
set -eu
cd "$(dirname "$0")/../.."
# shellcheck source=boot.sh
. tests/systemd/boot.sh

can_boot "the Debian package in a real systemd"
for command in nginx dpkg-deb dpkg-shlibdeps objdump; do
    [ -n "${ROOT:-}" ] || command -v "$command" >/dev/null 2>&1 ||
        skip "$command is not here (apt-get install nginx dpkg-dev binutils)"
done

package=${PACKAGE:-}
if [ -z "$package" ]; then
    begun=$(date +%s)
    package=$(BIN="$programs/ada2-sidecar" FAST=1 THIRD_PARTY=LICENSE-MIT sh systemd/build-deb.sh)
    echo "ok    the package is built: $(du -k "$package" | cut -f1) KiB in $(($(date +%s) - begun)) s"
fi
if command -v lintian >/dev/null 2>&1; then
    lintian --fail-on error,warning "$package"
    echo "ok    lintian has neither errors nor warnings"
else
    echo "skipped: lintian is not here (apt-get install lintian)"
fi

boot
install -m 755 "$programs/fake-invokeai" "$programs/ada2-sidecar" "$root/opt/ada2-test/"
install -m 644 "$package" "$root/opt/ada2-test/ada2-sidecar.deb"
guest 240 python3 -B /opt/ada2-test/package.py
