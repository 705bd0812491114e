#!/bin/sh
# Gets what the dashboard's stories run in: Chromium of the system, Node.js, and playwright-core from npm, which drives it.
#
# What cannot be got is said in left_out; tests/it/dashboard.rs leaves the stories out then, and fails in CI. What is there
# already is kept, so a second run takes a moment.
#
#   RUSHLINE_TEST_BROWSER   where the package and the marks go; default target/test-browser of this repository
set -eu

repository=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
here=$repository/tests/browser
place=${RUSHLINE_TEST_BROWSER:-$repository/target/test-browser}
mkdir -p "$place"
seconds_max=300 # a registry that does not answer must not hold up everything

say() { printf '%s\n' "test browser: $*"; }
have() { command -v "$1" >/dev/null 2>&1; }
left_out() {
    say "left out: $1 ($2)"
    printf '%s\n' "$1" "hint: $2" >"$place/left_out"
    exit 0
}
browser() {
    for name in chromium chromium-browser google-chrome-stable google-chrome; do
        if have "$name"; then command -v "$name"; return; fi
    done
    for program in '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome' /Applications/Chromium.app/Contents/MacOS/Chromium; do
        if [ -x "$program" ]; then printf '%s' "$program"; return; fi
    done
}

rm -f "$place/ready" "$place/left_out"
missing=''
[ -n "$(browser)" ] || missing="$missing chromium"
have node || missing="$missing node"
have npm || missing="$missing npm"
if [ -n "$missing" ]; then
    # shellcheck disable=SC2086  # a list of words
    have apt-get && sh "$repository/.ci/need" $missing || left_out "missing:$missing" 'install Chromium, Node.js 18 and npm'
fi
node_version=$(node --version | sed 's/^v//')
[ "${node_version%%.*}" -ge 18 ] || left_out "node is $node_version" 'install Node.js 18 or later, which playwright-core asks for'

if ! cmp -s "$here/package.json" "$place/package.json" || [ ! -d "$place/node_modules/playwright-core" ]; then
    say 'fetching playwright-core'
    cp "$here/package.json" "$place/package.json.part"
    bounded=''
    if have timeout; then bounded="timeout $seconds_max"; fi
    rm -rf "$place/node_modules" "$place/package.json"
    mkdir -p "$place/fetch"
    cp "$here/package.json" "$place/fetch/package.json"
    # shellcheck disable=SC2086
    $bounded npm install --prefix "$place/fetch" --no-package-lock --ignore-scripts --no-audit --no-fund >"$place/npm.log" 2>&1 ||
        { tail -n 5 "$place/npm.log" >&2; left_out 'playwright-core could not be got' "is npm's registry reachable? see $place/npm.log"; }
    mv "$place/fetch/node_modules" "$place/node_modules"
    rm -rf "$place/fetch"
    mv "$place/package.json.part" "$place/package.json"
fi
browser >"$place/ready"
say "$("$(browser)" --version 2>/dev/null | tail -n 1), playwright-core $(sed -n 's/.*"playwright-core": "\(.*\)".*/\1/p' "$here/package.json"), node $node_version"
