#!/bin/sh
# A throwaway PostgreSQL for the store's tests: `postgres.sh start | stop | url`.
#
# start is idempotent and prints the line that tells the tests where it is. The cluster is fast and forgets everything at
# a power loss; never keep anything in it. Needs PostgreSQL 15 or later (Debian: apt-get install postgresql).
set -eu

port=${CODEX_LB_TEST_POSTGRES_PORT:-54329}
url="postgres://postgres@127.0.0.1:$port/postgres"
wait_seconds_max=30

# PostgreSQL refuses to run as root, and the postgres user may not enter root's checkout.
if [ "$(id -u)" = 0 ]; then
    home=${TMPDIR:-/tmp}/codex-lb-test-postgres
    as_owner() { runuser -u postgres -- "$@"; }
else
    home=$(cd "$(dirname "$0")/.." && pwd)/target/test-postgres
    as_owner() { "$@"; }
fi
data=$home/data
log=$home/server.log

die() {
    echo "postgres.sh: $*" >&2
    exit 1
}

# Debian keeps the programs of each version in a directory of their own, outside the PATH.
find_programs() {
    bin=${CODEX_LB_TEST_POSTGRES_BIN:-}
    for directory in /usr/lib/postgresql/*/bin "$(dirname "$(command -v initdb || echo /none/initdb)")"; do
        if [ -z "$bin" ] && [ -x "$directory/initdb" ]; then bin=$directory; fi
    done
    [ -x "$bin/initdb" ] || die "no initdb found; install PostgreSQL or set CODEX_LB_TEST_POSTGRES_BIN"
}

is_ready() {
    "$bin/pg_isready" --quiet --username postgres --host 127.0.0.1 --port "$port"
}

is_ours() {
    [ -f "$data/postmaster.pid" ] && as_owner "$bin/pg_ctl" status --pgdata "$data" >/dev/null 2>&1
}

start() {
    if is_ours && is_ready; then return; fi
    if is_ready; then die "port $port serves another PostgreSQL; set CODEX_LB_TEST_POSTGRES_PORT"; fi
    mkdir -p "$home"
    if [ "$(id -u)" = 0 ]; then
        chown postgres "$home"
        chmod 700 "$home"
    fi
    if [ ! -f "$data/PG_VERSION" ]; then
        # Sorted like a dictionary, as most installations are: a test must not pass because of byte order.
        as_owner "$bin/initdb" --pgdata "$data" --username postgres --auth trust --encoding UTF8 --no-locale \
            --locale-provider icu --icu-locale en-US --no-sync >"$home.initdb.log" 2>&1 || die "initdb failed, see $home.initdb.log"
    fi
    waited=0
    until is_ready; do
        is_ours || launch
        [ "$waited" -lt "$wait_seconds_max" ] || die "not ready after $wait_seconds_max s, see $log"
        waited=$((waited + 1))
        sleep 1
    done
}

# Runs from a directory that the owner may enter, and keeps no descriptor of ours open.
launch() {
    # A pid file without its server is left over from a kill.
    as_owner rm -f "$data/postmaster.pid"
    (
        cd /
        as_owner "$bin/pg_ctl" start --silent --no-wait --pgdata "$data" --log "$log" --options "-p $port \
            -c listen_addresses=127.0.0.1 -c unix_socket_directories=$data -c max_connections=200 -c fsync=off \
            -c synchronous_commit=off -c full_page_writes=off"
    ) </dev/null >/dev/null || die "pg_ctl failed, see $log"
}

stop() {
    if is_ours; then (cd / && as_owner "$bin/pg_ctl" stop --silent --mode fast --pgdata "$data"); fi
    rm -rf "$home" "$home.initdb.log"
}

case ${1:-} in
start)
    find_programs
    start
    echo "export CODEX_LB_TEST_POSTGRES_URL=$url"
    ;;
stop)
    find_programs
    stop
    ;;
url) echo "$url" ;;
*) die "usage: postgres.sh start | stop | url" ;;
esac
