#!/bin/sh
# Do the tests bite? Changes the code of pure modules, one place at a time, and runs the module's unit tests: each change (a
# mutant) must make one of them fail. Needs cargo-mutants (cargo install --locked cargo-mutants).
#
#   tests/mutants/run.sh [MODULE …]             these modules, or all; a module is skipped if its files are as in its last run
#   tests/mutants/run.sh --again [MODULE …]     only the mutants that the last run missed
#   tests/mutants/run.sh --diff REF [MODULE …]  only what changed since REF
#   tests/mutants/run.sh --list                 the modules
#
# Results are in target/mutants/MODULE/mutants.out: missed.txt, and the change and the log of each mutant. What is not mutated,
# and why: .cargo/mutants.toml. MUTANTS_DIR: another folder for results; two runs at once need one each, and a
# CARGO_TARGET_DIR each. Exit code 1 if a mutant of --diff is missed, or if a module scores less than 95 %.
set -eu
cd "$(dirname "$0")/../.."
least=95
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
out=${MUTANTS_DIR:-$CARGO_TARGET_DIR/mutants}
tree=$out/tree
config=.cargo/mutants.toml

# Module, package, the tests that run (filters of libtest), the files in the package's src.
modules='
gateway_policy      gateway       policy::           policy.rs policy/**
gateway_admission   gateway       admission::        admission.rs admission/**
gateway_request     gateway       request::          request.rs request/**
gateway_retention   gateway       store::retention,store::fullness  store/retention.rs store/fullness.rs
gateway_store       gateway       store::            store/metadata.rs store/listing.rs store/index.rs
gateway_health      gateway       health::           health.rs health/state.rs health/history.rs health/viewers.rs health/model_cache.rs
sidecar_readiness   ada2-sidecar  readiness::rules,readiness::alarm,readiness::latch,readiness::xid  readiness/rules.rs readiness/rules/** readiness/alarm.rs readiness/latch.rs readiness/xid.rs
sidecar_images      ada2-sidecar  images::           images/[!t]*.rs images/task.rs images/tests.rs images/choice/**
sidecar_models      ada2-sidecar  images::           images/models/**
sidecar_template    ada2-sidecar  images::,engine::  images/template.rs images/template/*.rs images/template/repeat/**
sidecar_propose     ada2-sidecar  images::           images/template/propose.rs images/template/propose/**
sidecar_headers     ada2-sidecar  passthrough::      passthrough/headers.rs
service_framing     service       framing,serve      framing.rs
service_clients     service       proxy_headers,client_info,guard,request_id  proxy_headers.rs client_info.rs client_info/** guard.rs guard/** request_id.rs
service_text        service       parsing,slots,text parsing.rs slots.rs text.rs
service_multipart   service       multipart          multipart.rs multipart/**
picture             picture       -                  lib.rs scan.rs scan/**
wire                wire          -                  **
'
row() { printf '%s' "$modules" | awk -v module="$1" '$1 == module'; }
package_of() { row "$1" | awk '{ print $2 }'; }
filters_of() { row "$1" | awk '{ gsub(",", " ", $3); if ($3 != "-") print $3 }'; }
sources_of() {
    case $(package_of "$1") in
        gateway | ada2-sidecar) folder=$(package_of "$1") ;;
        *) folder=shared/$(package_of "$1") ;;
    esac
    row "$1" | awk -v folder="$folder" '{ for (at = 4; at <= NF; at++) print folder "/src/" $at }'
}

# The module's files, as git's patterns have them, and what decides on the mutants.
hash_of() {
    sources_of "$1" | sed 's|^|:(glob)|' | xargs git ls-files --cached --others --exclude-standard -- "$config" |
        sort | xargs sha256sum | sha256sum | cut -d ' ' -f 1
}
has_changed() { ! sources_of "$1" | sed 's|^|:(glob)|' | xargs git diff --quiet "$reference" --; }

# cargo-mutants changes files in place, so it gets a copy. At a path that stays, so that dependencies are not built again; all
# files are new (-m), or cargo would take what it built of the last mutant for what it builds now.
copy_tree() {
    mkdir -p "$tree"
    git ls-files --cached --others --exclude-standard -z >"$out/files"
    (cd "$tree" && find . -type f -name '*.rs' -exec rm -f {} +)
    tar --null --ignore-failed-read -cf - -T "$out/files" 2>/dev/null | tar -xmf - -C "$tree"
}

lines() { [ -e "$1" ] && wc -l <"$1" || echo 0; }

# report MODULE: its line of the table.
report() {
    results=$out/$1/mutants.out
    caught=$(($(lines "$results/caught.txt") + $(lines "$results/previously_caught.txt")))
    missed=$(lines "$results/missed.txt")
    timeout=$(lines "$results/timeout.txt")
    unviable=$(lines "$results/unviable.txt")
    tried=$((caught + timeout + missed))
    score=$([ "$tried" = 0 ] && echo 1000 || echo $(((caught + timeout) * 1000 / tried)) | sed 's/.$/.&/')
    echo "| $1 | $((tried + unviable)) | $caught | $missed | $timeout | $unviable | $score % |"
}

mutate() {
    module=$1
    shift
    mkdir -p "$out/$module"
    (
        cd "$tree"
        package=$(package_of "$module")
        filters=$(filters_of "$module")
        # The tests must pass as the code is. This builds what all mutants share, for which no mutant has the time.
        # shellcheck disable=SC2086
        cargo test --quiet --package="$package" --lib -- $filters || exit 1
        # The patterns are for cargo-mutants, not for the shell.
        set -f
        # shellcheck disable=SC2046,SC2086
        set -- $(sources_of "$module" | sed 's|^|--file=|') "$@" -- -- $filters
        # A mutant that is found by a loop without end must not wait much longer than the slowest test.
        exec cargo mutants --cargo-arg=--lib --package="$package" --in-place --baseline=skip --timeout=30 --build-timeout=120 \
            --no-shuffle --colors=never --output="$out/$module" "$@"
    ) >"$out/$module/log" 2>&1
}

mode=all reference='' names=''
while [ $# -gt 0 ]; do
    case $1 in
        --list) printf '%s' "$modules" | awk 'NF { print $1 }'; exit 0 ;;
        --again) mode=again ;;
        --diff) mode=diff reference=$2; shift ;;
        *) [ -n "$(row "$1")" ] || { echo "there is no module $1 (tests/mutants/run.sh --list)" >&2; exit 2; }; names="$names $1" ;;
    esac
    shift
done
[ -n "$names" ] || names=$(printf '%s' "$modules" | awk 'NF { print $1 }')

cargo mutants --version >/dev/null 2>&1 || { echo "cargo-mutants is missing: cargo install --locked cargo-mutants" >&2; exit 2; }
mkdir -p "$out"
copy_tree
# No debug symbols: half the time of building. Proptest must not remember one mutant's failure for the next, and must not
# take longer than the build.
export CARGO_TARGET_DIR CARGO_PROFILE_DEV_DEBUG=0 PROPTEST_DISABLE_FAILURE_PERSISTENCE=true PROPTEST_CASES=32
if [ "$mode" = diff ]; then
    out=$out/diff
    rm -rf "$out"
    mkdir -p "$out"
    git diff "$reference" -- '*.rs' >"$out/changes"
fi
failed=0
echo '| module | mutants | caught | missed | timeout | unviable | score |'
echo '|---|---|---|---|---|---|---|'
for module in $names; do
    [ "$mode" != diff ] || has_changed "$module" || continue
    hash=$(hash_of "$module")
    code=0
    case $mode in
        again) mutate "$module" --iterate || code=$? ;;
        diff) mutate "$module" --in-diff="$out/changes" || code=$? ;;
        all)
            if [ "$(cat "$out/$module/done" 2>/dev/null)" != "$hash" ]; then
                rm -rf "${out:?}/$module"
                mutate "$module" || code=$?
            fi
            ;;
    esac
    # 2: some are missed; 3: some tests took too long, as an endless loop does. Anything else is no result.
    case $code in
        0 | 2 | 3) ;;
        *) tail -n 20 "$out/$module/log" >&2; echo "$module: no result; $out/$module/log says why" >&2; exit 2 ;;
    esac
    [ "$mode" = diff ] || echo "$hash" >"$out/$module/done"
    report "$module"
    [ ! -s "$out/$module/mutants.out/missed.txt" ] || sed 's/^/    missed: /' "$out/$module/mutants.out/missed.txt" >&2
    missed=$(lines "$out/$module/mutants.out/missed.txt")
    tried=$((missed + $(cat "$out/$module"/mutants.out/*caught.txt "$out/$module/mutants.out/timeout.txt" 2>/dev/null | wc -l)))
    allowed=$([ "$mode" = diff ] && echo 0 || echo $((tried * (100 - least) / 100)))
    [ "$missed" -le "$allowed" ] || failed=1
done
exit "$failed"
