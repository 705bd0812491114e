#!/bin/sh
# Runs the fuzz targets, MINUTES (10) each and JOBS (2) at a time; TARGET names one of them. What is found on the way is in
# fuzz/corpus, what breaks a target in fuzz/artifacts; both stay out of git. It begins with fuzz/seeds, written by hand, and
# fuzz/kept, found earlier; KEEP=1 puts there what reaches all that was reached, and no more.
set -eu
cd -- "$(dirname -- "$0")/.."

cargo_fuzz=$(command -v cargo-fuzz || true)
if [ -z "$cargo_fuzz" ]; then
    # Beside the rest of what is built, so that nothing of the machine is changed.
    root=${CARGO_TARGET_DIR:-target}/cargo-fuzz
    [ -x "$root/bin/cargo-fuzz" ] || "${CARGO:-cargo}" install -q --locked --version 0.13.1 --root "$root" cargo-fuzz
    PATH=$(CDPATH='' cd -- "$root/bin" && pwd):$PATH
    export PATH
fi

seconds=$((${MINUTES:-10} * 60))
# No sanitizer: there is no unsafe code of ours for it to watch, without it ten times as much is tried, and any compiler will do.
fuzz_for() {
    target=$1
    python3 fuzz/kept.py unpack "$target" "fuzz/corpus/$target"
    "${CARGO:-cargo}" fuzz run -s none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -max_len=8192 -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 \
        >"fuzz/corpus/$target.log" 2>&1 || echo "$target" >>fuzz/corpus/broken
}

rm -f fuzz/corpus/broken
mkdir -p fuzz/corpus
"${CARGO:-cargo}" fuzz build -s none
printf 'each target runs for %s s, %s at a time\n' "$seconds" "${JOBS:-2}"
running=0
for path in fuzz/targets/${TARGET:-*}.rs; do
    fuzz_for "$(basename "$path" .rs)" &
    running=$((running + 1))
    if [ "$running" -ge "${JOBS:-2}" ]; then
        wait
        running=0
    fi
done
wait
for path in fuzz/targets/${TARGET:-*}.rs; do
    target=$(basename "$path" .rs)
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "fuzz/corpus/$target.log")
    covered=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "fuzz/corpus/$target.log" | tail -n 1)
    printf '%-14s %12s runs, %6s places reached, %s inputs kept\n' "$target" "${runs:-?}" "${covered:-?}" \
        "$(find "fuzz/corpus/$target" -type f | wc -l)"
done
if [ -n "${KEEP:-}" ]; then
    for path in fuzz/targets/${TARGET:-*}.rs; do
        target=$(basename "$path" .rs)
        printf 'keeping what %s needs\n' "$target"
        needed=$(mktemp -d)
        # By places reached; how often each was reached would keep five times as many.
        "${CARGO:-cargo}" fuzz run -s none "$target" "$needed" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
            -merge=1 -use_counters=0 -max_len=8192 >>"fuzz/corpus/$target.log" 2>&1
        python3 fuzz/kept.py pack "$target" "$needed"
        rm -rf "$needed"
    done
fi
if [ -f fuzz/corpus/broken ]; then
    while read -r target; do
        printf '\n%s is broken:\n' "$target" >&2
        tail -n 30 "fuzz/corpus/$target.log" >&2
    done <fuzz/corpus/broken
    echo "hint: fuzz/artifacts/ has what broke it; cargo fuzz run -s none TARGET FILE tries it again" >&2
    exit 1
fi
