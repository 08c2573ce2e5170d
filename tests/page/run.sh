#!/bin/sh
# The gateway's web page in Debian's Chromium, against both programs: a sidecar with the builtin engine and a fake card, and
# a gateway with its own certificate.
#
#   tests/page/run.sh                        everything
#   tests/page/run.sh --quick                without what takes long
#   tests/page/run.sh mask gallery           mask.test.mjs and gallery.test.mjs
#   tests/page/run.sh --only 'undo' gallery  the tests there whose names match
#   tests/page/run.sh --unit                 the page's own modules in Node alone: no browser, no programs
#   tests/page/run.sh --screenshots DIR      pictures of the page
#
# BIN_DIR: take both programs and libfake_nvml.so from there, nothing is built. CHROMIUM: the browser (default chromium).
# PAGE_FILES: the page's files from this folder instead of those in the gateway. Ends with 77 where it cannot run.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cannot=77

skip() {
    echo "skipped: $*"
    exit "$cannot"
}

# need COMMAND PACKAGE
need() {
    command -v "$1" >/dev/null 2>&1 && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$2"; } >/dev/null 2>&1 || true
    fi
    command -v "$1" >/dev/null 2>&1 || skip "there is no $1, and it cannot be installed here"
}

only='' unit='' shots=''
while [ $# -gt 0 ]; do
    case $1 in
        --only) only=$2 && shift 2 ;;
        --quick) PAGE_QUICK=yes && export PAGE_QUICK && shift ;;
        --unit) unit=yes && shift ;;
        --screenshots) mkdir -p "$2" && shots=$(cd "$2" && pwd) && shift 2 ;;
        -*) echo "run.sh: there is no option $1" >&2 && exit 2 ;;
        *) break ;;
    esac
done

need node nodejs
node -e 'const [major, minor] = process.versions.node.split(".").map(Number);
    process.exit(major > 20 || (major === 20 && minor >= 19) ? 0 : 1)' || skip "Node.js is older than 20.19"
# The page's modules have no package.json beside them: Node finds out by itself that they are modules, and says so.
unit_tests() { node --disable-warning=MODULE_TYPELESS_PACKAGE_JSON --test --test-reporter=spec "$here"/unit/*.test.mjs; }
if [ -n "$unit" ]; then
    unit_tests
    exit
fi

need "${CHROMIUM:-chromium}" chromium
need npm npm
target=${CARGO_TARGET_DIR:-$root/target}
mkdir -p "$target/page"
PAGE_TOOLS=$(cd "$target/page" && pwd)
CHROMIUM=$(command -v "${CHROMIUM:-chromium}")
if ! cmp -s "$here/package.json" "$PAGE_TOOLS/package.json" || [ ! -d "$PAGE_TOOLS/node_modules/playwright-core" ]; then
    rm -f "$PAGE_TOOLS/package.json"
    cp "$here/package.json" "$PAGE_TOOLS/wanted.json"
    (mkdir -p "$PAGE_TOOLS/new" && cd "$PAGE_TOOLS/new" && cp ../wanted.json package.json &&
        npm install --silent --no-package-lock --no-audit --no-fund) >/dev/null 2>&1 ||
        skip "playwright-core and axe-core cannot be had from npm here"
    rm -rf "$PAGE_TOOLS/node_modules"
    mv "$PAGE_TOOLS/new/node_modules" "$PAGE_TOOLS/node_modules"
    mv "$PAGE_TOOLS/wanted.json" "$PAGE_TOOLS/package.json"
    rm -rf "$PAGE_TOOLS/new"
fi
if [ -z "${BIN_DIR:-}" ]; then
    cargo build --quiet --manifest-path "$root/Cargo.toml" -p ada2-sidecar -p gateway -p fake-nvml
    BIN_DIR=$target/debug
fi
BIN_DIR=$(cd "$BIN_DIR" && pwd)
export BIN_DIR CHROMIUM PAGE_TOOLS

if [ -n "$shots" ]; then
    SHOTS=$shots exec node --test --test-reporter=spec "$here/screenshots.mjs"
fi
if [ $# -eq 0 ]; then
    unit_tests
    for file in "$here"/*.test.mjs; do
        case "${PAGE_QUICK:-} $file" in "yes "*/scroll.test.mjs) ;; *) set -- "$@" "$file" ;; esac
    done
else
    for name; do
        set -- "$@" "$here/$name.test.mjs"
        shift
    done
fi
[ -z "$only" ] || set -- "--test-name-pattern=$only" "$@"
exec node --test --test-concurrency=1 --test-reporter=spec "$@"
