#!/bin/sh
# Writes the CycloneDX bill of materials of one of our programs: what is linked into it, with checksums, licences and sources.
#
#   sh .ci/sbom.sh CRATE TARGET FILE      for example: gateway aarch64-apple-darwin gateway.cdx.json
#
# SOURCE_DATE_EPOCH: the date in it (default: the last commit's).
set -eu
cd "$(dirname "$0")/.."
[ $# = 3 ] || { echo "usage: sh .ci/sbom.sh CRATE TARGET FILE" >&2; exit 1; }
crate=$1 target=$2 file=$3
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

cargo cyclonedx --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-cyclonedx >&2
cargo fetch --locked --target "$target" --quiet
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# In a workspace of this program alone and without its tests: features are those of all members together, and the tool
# writes beside each manifest.
git ls-files -z -- Cargo.toml Cargo.lock shared "$crate" | xargs -0 cp --parents -t "$work"
sed -i "s/^members = .*/members = [\"shared\", \"$crate\"]/; s/^default-members = .*/default-members = [\"$crate\"]/" \
    "$work/Cargo.toml"
for manifest in shared "$crate"; do
    awk '/^\[/ { tests = /^\[(dev-dependencies|target.*dev-dependencies)/ } !tests' "$manifest/Cargo.toml" >"$work/$manifest/Cargo.toml"
done
CARGO_NET_OFFLINE=true cargo cyclonedx --quiet --manifest-path "$work/$crate/Cargo.toml" --format json --spec-version 1.5 \
    --target "$target" --no-build-deps --override-filename sbom >&2
sed "s#path+file://$work#path+file://.#g; s#file://$work#file://.#g" "$work/$crate/sbom.json" >"$work/sbom"

# cargo's metadata, which the tool reads, knows features only for all targets together, so that some crates too many are
# named. What is linked says cargo tree.
cargo tree --frozen --package "$crate" --target "$target" --edges normal --prefix none --format '{p}' |
    sed 's/ (.*//; s/ v/ /' | sort -u >"$work/linked"
python3 -c '
import json, sys
bom, linked = json.load(open(sys.argv[1])), set(open(sys.argv[2]).read().splitlines())
name = lambda component: "{name} {version}".format(**component)
bom["components"] = [component for component in bom["components"] if name(component) in linked]
known = [bom["metadata"]["component"], *bom["components"]]
missing = linked - set(map(name, known))
if missing:
    sys.exit(f"sbom.sh: not in the bill of materials: {sorted(missing)}")
references = {component["bom-ref"] for component in known}
bom["dependencies"] = [
    {**edge, **({"dependsOn": [to for to in edge["dependsOn"] if to in references]} if "dependsOn" in edge else {})}
    for edge in bom["dependencies"] if edge["ref"] in references
]
json.dump(bom, sys.stdout, indent=2)
print()
' "$work/sbom" "$work/linked" >"$work/exact"
cp "$work/exact" "$file"
