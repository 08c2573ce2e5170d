#!/bin/sh
# Fuzzes the parsers of both programs. Goes on where the last run ended: inputs and times are in target/fuzz. See README.md.
#
#   tests/fuzz/run.sh [--minutes N | --quick | --table] [TARGET …]
#
# --minutes N   for each target (default 5)
# --quick       10 seconds each
# --table       only prints what was done so far
# BIN_DIR       take the fuzzers from there; they are not built
#
# Ends with 1 if a target has findings, with 77 where it cannot run.
set -eu
cd "$(dirname "$0")/../.."
out=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
seconds=300 only_table=
while :; do
    case ${1:-} in
        --minutes) seconds=$((${2:?--minutes needs a number} * 60)); shift 2 ;;
        --quick) seconds=10; shift ;;
        --table) only_table=yes; shift ;;
        -*) echo "run.sh: unknown option $1" >&2; exit 1 ;;
        *) break ;;
    esac
done
all=$(for file in tests/fuzz/fuzz_targets/*.rs; do basename "$file" .rs; done)
targets=${*:-$all}
for target in $targets; do
    [ -e "tests/fuzz/fuzz_targets/$target.rs" ] || { echo "run.sh: no target $target (tests/fuzz/README.md)" >&2; exit 1; }
done

findings() { find "$out/findings" -type f -name "$1-*" 2>/dev/null | wc -l; }

# The ledger has a line for each target: its name, processor seconds, executions, coverage.
table() {
    printf '%-17s %8s %12s %9s %9s\n' target minutes executions coverage findings
    for target in $all; do
        line=$(grep "^$target " "$out/ledger" 2>/dev/null || echo "$target 0 0 0")
        # shellcheck disable=SC2086
        set -- $line
        printf '%-17s %8s %12d %9d %9d\n' "$1" "$(($2 / 60)).$(($2 % 60 / 6))" "$3" "$4" "$(findings "$1")"
    done
}

# note TARGET SECONDS EXECUTIONS COVERAGE: adds to the ledger.
note() {
    awk -v target="$1" -v seconds="$2" -v executions="$3" -v coverage="$4" '
        $1 == target { seconds += $2; executions += $3; next }
        { print }
        END { print target, seconds, executions, coverage }
    ' "$out/ledger" >"$out/ledger.new"
    mv "$out/ledger.new" "$out/ledger"
}

[ -z "$only_table" ] || { table; exit 0; }

mkdir -p "$out/findings" "$out/logs"
touch "$out/ledger"
if [ -z "${BIN_DIR:-}" ]; then
    cargo +nightly --version >/dev/null 2>&1 ||
        { echo "skipped: no nightly toolchain (rustup toolchain install nightly --profile minimal)"; exit 77; }
    cargo fuzz --version >/dev/null 2>&1 || cargo install --locked --quiet cargo-fuzz ||
        { echo "skipped: cargo-fuzz cannot be installed (cargo install --locked cargo-fuzz)"; exit 77; }
    # Without sanitizers: our code has no unsafe parts, and runs several times as fast.
    cargo +nightly fuzz build --fuzz-dir tests/fuzz --target-dir "$out/build" --sanitizer none
    BIN_DIR=$out/build/$(rustc -vV | sed -n 's/^host: //p')/release
fi

failed=0
for target in $targets; do
    corpus=$out/corpus/$target log=$out/logs/$target
    mkdir -p "$corpus"
    code=0
    (
        "$BIN_DIR/$target" -max_total_time="$seconds" -max_len=65536 -timeout=30 -rss_limit_mb=3000 \
            -print_final_stats=1 -artifact_prefix="$out/findings/$target-" "$corpus" "tests/fuzz/seeds/$target" >"$log" 2>&1
        code=$?
        times >"$log.times"
        exit "$code"
    ) || code=$?
    # The second line: what children took, as 0m1.5s 0m0.1s.
    spent=$(awk 'NR == 2 { gsub(/[ms]/, " "); $0 = $0; printf "%d", $1 * 60 + $2 + $3 * 60 + $4 }' "$log.times")
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    coverage=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    note "$target" "$spent" "${executions:-0}" "${coverage:-0}"
    if [ "$code" != 0 ]; then
        failed=1
        echo "== $target: exit code $code; $log; the input: $(sed -n 's/.*Test unit written to //p' "$log")"
        grep -A 8 'panicked at\|ERROR: libFuzzer' "$log" | head -n 16
    fi
done
table
exit "$failed"
