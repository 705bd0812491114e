#!/bin/sh
# Runs the fuzz targets one after the other, MINUTES (10) each; TARGET names one of them. What is found on the way is kept in
# fuzz/corpus, what breaks a target in fuzz/artifacts; both stay out of git. Seeds are in fuzz/seeds.
set -eu
cd -- "$(dirname -- "$0")/.."

toolchain=${RUSHLINE_FUZZ_TOOLCHAIN:-nightly}
if ! rustup run "$toolchain" rustc --version >/dev/null 2>&1; then
    printf '%s\n' "error: fuzzing needs a nightly compiler, and there is none called $toolchain" \
        "hint: rustup toolchain install nightly --profile minimal" >&2
    exit 1
fi
cargo_fuzz=$(command -v cargo-fuzz || true)
if [ -z "$cargo_fuzz" ]; then
    # Beside the rest of what is built, so that nothing of the machine is changed.
    root=${CARGO_TARGET_DIR:-target}/cargo-fuzz
    [ -x "$root/bin/cargo-fuzz" ] || "${CARGO:-cargo}" install -q --locked --version 0.13.1 --root "$root" cargo-fuzz
    PATH=$(CDPATH='' cd -- "$root/bin" && pwd):$PATH
    export PATH
fi

seconds=$((${MINUTES:-10} * 60))
status=0
for path in fuzz/targets/${TARGET:-*}.rs; do
    target=$(basename "$path" .rs)
    mkdir -p "fuzz/corpus/$target"
    printf '\n== %s, %s s\n' "$target" "$seconds"
    # No sanitizer: there is no unsafe code of ours for it to watch, and without it ten times as much is tried.
    rustup run "$toolchain" cargo fuzz run -s none "$target" "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -max_len=8192 -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 || status=1
done
exit $status
