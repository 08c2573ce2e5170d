#!/bin/sh
# Writes the licences of all that is linked into one of our programs, C code and the standard library included.
#
#   sh .ci/third-party.sh CRATE TARGET FILE      for example: gateway aarch64-apple-darwin THIRD-PARTY.txt
#
# Reads the crates' own files, which cargo has fetched; nothing else is asked for. Fails if a crate's licence cannot be told,
# is none of those in about.toml, or if the file does not name every crate.
set -eu
cd "$(dirname "$0")/.."
[ $# = 3 ] || { echo "usage: sh .ci/third-party.sh CRATE TARGET FILE" >&2; exit 1; }
crate=$1 target=$2 file=$3
case $crate in
    ada2-sidecar | gateway) ;;
    *) echo "third-party.sh: $crate is no program of this workspace" >&2; exit 1 ;;
esac

cargo about --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-about --features cli >&2
cargo fetch --locked --target "$target" --quiet
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cargo about --color never -L error generate --frozen --fail --manifest-path "$crate/Cargo.toml" --target "$target" \
    --config .ci/about.toml --output-file "$work/about" .ci/about.hbs >"$work/log" 2>&1 || { cat "$work/log" >&2; exit 1; }
python3 -B .ci/std_licences.py "$(rustc --print sysroot)" >"$work/std"

cargo tree --frozen --package "$crate" --target "$target" --edges normal --prefix none --format '{p}' |
    sed -n 's/^\([^ ]*\) v\([^ ]*\)$/\1 \2/p; s/^\([^ ]*\) v\([^ ]*\) (proc-macro).*/\1 \2/p' | sort -u >"$work/linked"
[ -s "$work/linked" ] || { echo "third-party.sh: cargo tree names no crate" >&2; exit 1; }
missing=$(while read -r one; do grep -qF "    $one" "$work/about" || echo "$one"; done <"$work/linked")
[ -z "$missing" ] || { echo "third-party.sh: not in the list of licences: $missing" >&2; exit 1; }

cat "$work/about" "$work/std" >"$file"
