#!/bin/sh
# Empty programs in place of the sources, so that what they depend on can be built before they are there: the Dockerfile's
# layer of dependencies.
set -eu
for package in . examples loadtest simulate; do
    mkdir -p "$package/src"
    printf 'fn main() {}\n' >"$package/src/main.rs"
done
touch src/lib.rs examples/src/lib.rs simulate/src/lib.rs
mkdir -p tests/it simulate/tests/certify
printf 'fn main() {}\n' | tee tests/it/main.rs simulate/tests/zoo.rs simulate/tests/certify/main.rs >/dev/null
