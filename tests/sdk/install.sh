#!/bin/sh
# Gets the packages of dtm's SDKs that the stories in tests/sdk/ run, from their own registries, in pinned versions.
#
# An SDK whose toolchain is not here, or whose registry does not answer, is left out, and said to be. tests/it/sdk.rs
# runs what has the mark NAME.ready in the directory below; in CI it fails for the others, with what stands in
# NAME.left_out. What is there already is kept, so a second run takes a moment.
#
#   RUSHLINE_TEST_SDKS   where packages and marks go; default target/test-sdks of this repository
set -eu

repository=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
here=$repository/tests/sdk
sdks=${RUSHLINE_TEST_SDKS:-$repository/target/test-sdks}
mkdir -p "$sdks"
# A registry that does not answer must not hold up everything.
seconds_max=300

say() { printf '%s\n' "test sdks: $*"; }
have() { command -v "$1" >/dev/null 2>&1; }

# left_out SDK WHY HINT
left_out() {
    say "$1 is left out: $2 ($3)"
    printf '%s\n' "$2" "hint: $3" >"$sdks/$1.left_out"
}

# quietly SDK COMMAND …: bounded, tried once more, and heard of only when it fails.
quietly() {
    name=$1
    log=$sdks/$1.log
    shift
    if have timeout; then set -- timeout "$seconds_max" "$@"; fi
    if "$@" >"$log" 2>&1 || "$@" >"$log" 2>&1; then return; fi
    tail -n 20 "$log" >&2
    left_out "$name" 'its packages could not be got' "is its registry reachable? the whole log is $log"
    return 1
}

# ready SDK WHAT
ready() {
    touch "$sdks/$1.ready"
    say "$2"
}

# fetched SDK FILE: are the packages there that this file asks for?
fetched() { [ -f "$sdks/$1.packages" ] && cmp -s "$2" "$sdks/$1.packages"; }
keep() { cp "$2" "$sdks/$1.packages"; }

# number VERSION: 1.26.8 as 1026, to be compared.
number() { printf '%s' "$1" | awk -F. '{ print $1 * 1000 + $2 }'; }

for mark in go gozero dtm python java node curl; do rm -f "$sdks/$mark.ready" "$sdks/$mark.left_out"; done

# ---- Go: github.com/dtm-labs/client -----------------------------------------------------------------------------
# Built without being run, so that the stories themselves find all of it in the cache.
go_packages() {
    fetched go "$here/go/go.sum" && return
    say 'fetching and building what dtm-labs/client needs'
    quietly go go -C "$here/go" test -exec true ./... && keep go "$here/go/go.sum"
}
go_version=$(go env GOVERSION 2>/dev/null | sed 's/^go//' || true)
if [ -z "$go_version" ]; then
    left_out go 'there is no go' 'install Go 1.22 or later'
elif [ "$(number "$go_version")" -lt 1022 ]; then
    left_out go "go is $go_version" 'Go 1.22 or later builds the stories; older Debian packages do not'
elif go_packages; then
    ready go "go           dtm-labs/client $(sed -n 's/.*dtm-labs\/client v//p' "$here/go/go.mod"), go $go_version"
fi

# ---- go-zero: github.com/zeromicro/go-zero, two versions of it --------------------------------------------------
# Without the Kubernetes resolver, where it can be left out: it takes longer to build than all the rest.
gozero_packages() {
    fetched gozero "$here/gozero/go.sum" && return
    say 'fetching and building go-zero, which takes a few minutes'
    quietly gozero go -C "$here/gozero" test -exec true -tags=no_k8s . &&
        quietly gozero go -C "$here/gozero" test -exec true -tags=no_k8s -modfile=classic.mod . &&
        keep gozero "$here/gozero/go.sum"
}
if [ -z "$go_version" ]; then
    left_out gozero 'there is no go' 'install Go 1.24 or later'
elif [ "$(number "$go_version")" -lt 1024 ]; then
    left_out gozero "go is $go_version" 'install Go 1.24 or later, which go-zero asks for'
elif gozero_packages; then
    versions=$(sed -n 's/.*zeromicro\/go-zero v//p' "$here/gozero/go.mod" "$here/gozero/classic.mod" | tr '\n' ' ')
    ready gozero "go-zero      ${versions}with dtmdriver-gozero, go $go_version"
fi

# ---- dtm itself, whose unfinished transactions are imported: no SDK, but it comes the same way -----------------------
dtm_server() {
    [ -x "$sdks/dtm" ] && fetched dtm "$here/dtm/go.sum" && return
    say 'building the dtm server'
    quietly dtm go -C "$here/dtm" build -o "$sdks/dtm" . && keep dtm "$here/dtm/go.sum"
}
if [ -z "$go_version" ]; then
    left_out dtm 'there is no go' 'install Go 1.22 or later'
elif [ "$(number "$go_version")" -lt 1022 ]; then
    left_out dtm "go is $go_version" 'Go 1.22 or later builds it; older Debian packages do not'
elif dtm_server; then
    ready dtm "dtm          its server $(sed -n 's/.*dtm-labs\/dtm v//p' "$here/dtm/go.mod"), go $go_version"
fi

# ---- Python: dtmcli ---------------------------------------------------------------------------------------------
python_packages() {
    fetched python "$here/python/requirements.txt" && return
    say 'fetching dtmcli and grpcio for Python'
    rm -rf "$sdks/python"
    quietly python python3 -m pip install -q --disable-pip-version-check --target "$sdks/python" \
        -r "$here/python/requirements.txt" && keep python "$here/python/requirements.txt"
}
if ! python3 -m pip --version >/dev/null 2>&1; then
    left_out python 'there is no python3 with pip' 'install python3 and python3-pip'
elif python_packages; then
    ready python "python       dtmcli $(sed -n 's/^dtmcli==//p' "$here/python/requirements.txt"), $(python3 --version)"
fi

# ---- Java: io.github.dtm-labs:dtmcli-java -----------------------------------------------------------------------
java_packages() {
    fetched java "$here/java/pom.xml" && return
    say 'fetching dtmcli-java'
    rm -rf "$sdks/java"
    quietly java mvn -q -B -f "$here/java/pom.xml" dependency:copy-dependencies -DoutputDirectory="$sdks/java" &&
        keep java "$here/java/pom.xml"
}
java_version=$(javac -version 2>&1 | sed -n 's/^javac \([0-9]*\).*/\1/p' || true)
if [ -z "$java_version" ]; then
    left_out java 'there is no javac' 'install a JDK, 17 or later'
elif [ "$java_version" -lt 17 ]; then
    left_out java "javac is $java_version" 'install a JDK, 17 or later'
elif ! have mvn; then
    left_out java 'there is no mvn' 'install Maven'
elif java_packages; then
    ready java "java         dtmcli-java $(sed -n 's/.*<dtmcli>\(.*\)<\/dtmcli>.*/\1/p' "$here/java/pom.xml"), JDK $java_version"
fi

# ---- Node and curl: nothing to fetch ----------------------------------------------------------------------------
node_version=$(node --version 2>/dev/null | sed 's/^v//' || true)
if [ -z "$node_version" ]; then
    left_out node 'there is no node' 'install Node.js 18 or later'
elif [ "$(number "$node_version")" -lt 18000 ]; then
    left_out node "node is $node_version" 'install Node.js 18 or later'
else
    ready node "node         a client without packages, node $node_version"
fi
if have curl; then
    ready curl "curl         $(curl --version | sed -n '1s/^curl \([^ ]*\).*/\1/p')"
else
    left_out curl 'there is no curl' 'install curl'
fi
