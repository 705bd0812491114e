#!/bin/sh
# Runs all tests on real servers, ends what is left of them, and adds the results up in the last line.
# Arguments go to `cargo test`: `sh tests/run.sh -- a_name` runs the tests with that in their names.
set -eu

cd -- "$(dirname -- "$0")/.."
sh tests/servers/install.sh
sh tests/sdk/install.sh
sh tests/browser/install.sh
sh tests/deploy/install.sh
sh tests/book/install.sh

if [ -n "${CI:-}" ]; then
    export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
fi

# All that the tests start works inside this directory, so whoever still does at the end was left behind by a killed
# test. A short path, for unix sockets; open to walk through, for PostgreSQL's own account.
scratch=$(mktemp -d /tmp/rushline-test.XXXXXX)
scratch=$(CDPATH='' cd -- "$scratch" && pwd -P)
chmod 711 "$scratch"
mkdir "$scratch/tests"
chmod 1777 "$scratch/tests"
export TMPDIR="$scratch/tests"

# The ids of processes whose working directory is ours, removed already or not.
left_behind() {
    if [ -d /proc/self ]; then
        for link in /proc/[0-9]*/cwd; do
            case $(readlink "$link" 2>/dev/null) in
                "$scratch"/*) link=${link#/proc/} && printf '%s\n' "${link%/cwd}" ;;
            esac
        done
    elif command -v lsof >/dev/null 2>&1; then
        lsof -t -a -d cwd +D "$scratch" 2>/dev/null || true
    fi
}
clean_up() {
    for signal in TERM KILL; do
        ids=$(left_behind)
        if [ -z "$ids" ]; then break; fi
        # shellcheck disable=SC2086  # a list of ids
        kill -s "$signal" $ids 2>/dev/null || true
        sleep 1
    done
    rm -rf "$scratch"
}
trap 'clean_up; exit 130' INT TERM

# So long each decoder is tried on spoilt copies of what reaches all of it; `make fuzz` searches for more.
export RUSHLINE_TEST_FUZZ_SECONDS="${RUSHLINE_TEST_FUZZ_SECONDS:-30}"

set +e
{ "${CARGO:-cargo}" test --workspace --all-features --locked --no-fail-fast "$@" 2>&1; echo $? >"$scratch/status"; } |
    tee "$scratch/log"
set -e
status=$(cat "$scratch/status")

# cargo says a line per test binary; the last line of a run should say it for all.
total=$(awk '
    { gsub(/\033\[[0-9;]*m/, "") }
    /^test result:/ {
        for (i = 2; i <= NF; i++) {
            if ($i ~ /^passed/) passed += $(i - 1)
            if ($i ~ /^failed/) failed += $(i - 1)
            if ($i ~ /^ignored/) ignored += $(i - 1)
        }
    }
    END { printf "%d passed; %d failed; %d ignored; 0 measured; 0 filtered out", passed, failed, ignored }' "$scratch/log")
trap - INT TERM
clean_up
if [ "$status" = 0 ]; then word=ok; else word=FAILED; fi
printf '\ntest result: %s. %s\n' "$word" "$total"
exit "$status"
