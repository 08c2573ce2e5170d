#!/bin/sh
# Packages a gateway binary with its installer. The same files give the same archive, byte for byte.
#
#   sh launchd/package.sh BINARY ARCHIVE [FILE …]      ARCHIVE ends with .tar.gz; FILEs are added to it
#
# SOURCE_DATE_EPOCH: the date of the files in it (default: the last commit's).
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
[ $# -ge 2 ] || { echo "usage: sh launchd/package.sh BINARY ARCHIVE.tar.gz [FILE …]" >&2; exit 1; }
binary=$1 archive=$2
shift 2
name=$(basename "$archive" .tar.gz)
date=${SOURCE_DATE_EPOCH:-$(git -C "$root" log -1 --format=%ct)}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
package=$work/$name
mkdir "$package"
cp "$binary" "$package/gateway"
for file in common.sh jobs.sh install.sh deploy.sh rollback.sh com.ai.gateway.plist com.ai.gateway.newsyslog.conf; do
    cp "$root/launchd/$file" "$package"
done
cp "$root/gateway/env/ada2-images.env.example" "$root"/gateway/*.md "$root/gateway/backends_config.example.yaml" "$package"
mkdir "$package/docs"
cp "$root"/gateway/docs/* "$package/docs"
for file in "$root"/LICENSE-* "$root/CHANGELOG.md" "$@"; do
    [ ! -f "$file" ] || cp "$file" "$package"
done

find "$package" -type f -exec chmod 644 {} +
chmod 755 "$package" "$package/docs" "$package/gateway" "$package"/install.sh "$package"/deploy.sh "$package"/rollback.sh
stamp=$(TZ=UTC date -d "@$date" +%Y%m%d%H%M.%S 2>/dev/null || TZ=UTC date -r "$date" +%Y%m%d%H%M.%S)
find "$package" -exec env TZ=UTC touch -t "$stamp" {} +
if tar --version | grep -q GNU; then
    owner='--owner=0 --group=0'
else
    # bsdtar, as on a Mac.
    owner='--uid 0 --gid 0'
    # Without ._ files, which hold macOS's own metadata.
    export COPYFILE_DISABLE=1
fi
(cd "$work" && find "$name" | LC_ALL=C sort >names)
# shellcheck disable=SC2086
tar -C "$work" -cf "$work/tar" $owner --numeric-owner --format=ustar --no-recursion -T "$work/names"
gzip -9 -n -c "$work/tar" >"$archive.new"
mv -f "$archive.new" "$archive"
