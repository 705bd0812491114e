#!/bin/sh
# Runs all tests on real servers, ends what is left of them, and adds the results up in the last line.
# Arguments go to `cargo test`: `sh tests/run.sh -- a_name` runs the tests with that in their names.
set -eu

cd -- "$(dirname -- "$0")/.."
sh tests/servers/install.sh

# Every process of this run carries this variable; whoever still does at the end was left behind by a killed test.
RUSHLINE_TEST_RUN="rushline-test-$$-$(date +%s)"
export RUSHLINE_TEST_RUN
if [ -n "${CI:-}" ]; then
    export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
fi

scratch=$(mktemp -d "${TMPDIR:-/tmp}/rushline-test.XXXXXX")

# Only processes with our mark, one by one by their ids. Linux tells of marks; elsewhere the tests' own drops must do.
end_leftovers() {
    for environment in /proc/[0-9]*/environ; do
        if ! grep -q "RUSHLINE_TEST_RUN=$RUSHLINE_TEST_RUN" "$environment" 2>/dev/null; then continue; fi
        pid=${environment#/proc/}
        pid=${pid%/environ}
        case $(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null) in
            *redis-server* | *mongod* | *mariadbd* | *postgres* | *rushline*)
                case $pid in "$$") continue ;; esac
                kill "$1" "$pid" 2>/dev/null && left_over=$((left_over + 1)) ;;
        esac
    done
}
clean_up() {
    left_over=0
    end_leftovers -TERM
    if [ "$left_over" -gt 0 ]; then
        sleep 2
        end_leftovers -KILL
    fi
    rm -rf "$scratch"
}
trap 'clean_up; exit 130' INT TERM

set +e
{ "${CARGO:-cargo}" test --workspace --locked --no-fail-fast "$@" 2>&1; echo $? >"$scratch/status"; } |
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
