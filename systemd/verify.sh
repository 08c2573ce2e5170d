#!/bin/sh
# Checks the units with systemd-analyze, with each program's path replaced by one that exists.
set -eu
cd "$(dirname "$0")"
if ! command -v systemd-analyze >/dev/null 2>&1; then
    echo "skipped: systemd-analyze is not installed"
    exit 0
fi
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
for unit in ada2-sidecar.service ada2-sidecar.socket examples/*.service; do
    sed -E 's#^(Exec[A-Za-z]+=[-+!@:]*)/(usr|opt)/[^ ]*#\1/bin/true#; s#^WorkingDirectory=/opt/.*#WorkingDirectory=/#' \
        "$unit" >"$directory/${unit##*/}"
done
# The engine's own unit is named in After= and need not exist.
output=$(systemd-analyze verify --man=no "$directory"/*.service "$directory"/*.socket 2>&1) || { echo "$output"; exit 1; }
if printf '%s' "$output" | grep -qE 'ada2-sidecar\.|invokeai\.service|comfyui\.service'; then
    echo "$output"
    exit 1
fi
echo clean
