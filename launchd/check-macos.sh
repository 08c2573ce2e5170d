#!/bin/sh
# Type-checks the gateway for macOS. Building for it needs Apple's tools; checking needs the target's standard library
# and a C compiler for it (zig, from the Python package index) for the one dependency with C code.
set -eu
cd "$(dirname "$0")/.."
target=aarch64-apple-darwin
if ! rustup target add "$target" >/dev/null 2>&1; then
    echo "skipped: the target $target cannot be installed here"
    exit 0
fi
tools=${TMPDIR:-/tmp}/gateway-check-macos
if [ ! -x "$tools/venv/bin/python" ]; then
    python3 -m venv "$tools/venv" || { echo "skipped: no python3 with venv"; exit 0; }
fi
"$tools/venv/bin/python" -c 'import ziglang' 2>/dev/null ||
    "$tools/venv/bin/pip" install --quiet --disable-pip-version-check ziglang ||
    { echo "skipped: ziglang cannot be installed here"; exit 0; }
cat >"$tools/cc" <<WRAPPER
#!/bin/sh
# cc-rs passes Apple's name of the target; zig has its own.
for argument; do
    shift
    case \$argument in
        --target=* | -mmacosx-version-min=*) ;;
        *) set -- "\$@" "\$argument" ;;
    esac
done
exec "$tools/venv/bin/python" -m ziglang cc -target aarch64-macos "\$@"
WRAPPER
chmod +x "$tools/cc"
CC_aarch64_apple_darwin="$tools/cc" AR_aarch64_apple_darwin=ar CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/macos" \
    cargo check --quiet --target "$target" -p gateway
echo "gateway type-checks for $target"
