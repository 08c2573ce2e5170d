#!/bin/sh
# Looks at the Mac's package as far as Linux can: what is in it, for which Macs its binary is, what that needs of macOS.
#
#   tests/macos/package.sh [PACKAGE.tar.gz]      default: builds it (launchd/build-macos.sh)
set -eu
cd "$(dirname "$0")/../.."
for command in file python3 plistutil llvm-objdump; do
    command -v "$command" >/dev/null 2>&1 ||
        { echo "skipped: no $command (apt-get install file python3 libplist-utils llvm)"; exit 0; }
done
package=${1:-$(sh launchd/build-macos.sh)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -B tests/macos/package.py "$package" "$work"
