#!/bin/sh
# collect.sh DIRECTORY: what the program in DIRECTORY (target/release) makes for its Debian package: manuals, completions and
# the sample of all settings, below DIRECTORY/deb.
set -eu
program=$1/rushline
made=$1/deb
rm -rf "$made"
mkdir -p "$made/man" "$made/completions"
"$program" man --out "$made/man"
"$program" completions bash >"$made/completions/rushline"
"$program" completions zsh >"$made/completions/_rushline"
"$program" completions fish >"$made/completions/rushline.fish"
"$program" config sample >"$made/rushline.yaml"
