#!/bin/sh
# Checks the units with systemd-analyze, with the binary's path replaced by one that exists here.
set -eu
cd "$(dirname "$0")"
if ! command -v systemd-analyze >/dev/null 2>&1; then
    echo "skipped: systemd-analyze is not here"
    exit 0
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for unit in ada2-sidecar.service ada2-sidecar.socket; do
    sed "s|/usr/bin/ada2-sidecar|/bin/true|" "$unit" >"$folder/$unit"
done
# The engine's own unit is named in After= and need not exist.
said=$(systemd-analyze verify --man=no "$folder/ada2-sidecar.service" "$folder/ada2-sidecar.socket" 2>&1) || { echo "$said"; exit 1; }
if printf '%s' "$said" | grep -q 'ada2-sidecar\.'; then
    echo "$said"
    exit 1
fi
echo clean
