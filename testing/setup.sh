#!/usr/bin/env bash
# Installs what building (`setup.sh build`), testing (`setup.sh test`) or benchmarking (`setup.sh bench`) needs and is
# not there. Again is quick.
set -euo pipefail
cd "$(dirname "$0")/.."

die() {
    echo "setup: $*" >&2
    exit 1
}

# Prints the Debian packages whose programs are missing.
missing_packages() {
    local pair
    for pair in cmake:cmake gcc:gcc make:make pkg-config:pkg-config "$@"; do
        command -v "${pair%%:*}" >/dev/null || echo "${pair##*:}"
    done
}

missing_test_packages() {
    missing_packages jq:jq curl:curl node:nodejs npm:npm python3:python3
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null || echo postgresql
    # A python3 that is not the system's brings its own venv, and Debian's package would not help it.
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
}

install_packages() {
    local packages=("$@")
    [ ${#packages[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "please install: ${packages[*]}"
    local as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || die "please install: ${packages[*]}"
        as_root=(sudo)
    fi
    echo "setup: installing ${packages[*]}"
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
}

setup_rust() {
    command -v cargo >/dev/null || die "please install Rust: https://rustup.rs"
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
    cargo nextest --version >/dev/null 2>&1 || cargo install cargo-nextest --locked
}

setup_codex() {
    local stamp=testing/clients/codex/node_modules/.installed
    cmp -s testing/clients/codex/package-lock.json "$stamp" && return 0
    npm ci --prefix testing/clients/codex --no-audit --no-fund
    cp testing/clients/codex/package-lock.json "$stamp"
}

setup_python() {
    local stamp=.venv/.installed
    cmp -s testing/clients/python/requirements.txt "$stamp" && return 0
    python3 -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r testing/clients/python/requirements.txt
    cp testing/clients/python/requirements.txt "$stamp"
}

case ${1:-} in
build)
    mapfile -t packages < <(missing_packages)
    install_packages "${packages[@]}"
    command -v cargo >/dev/null || die "please install Rust: https://rustup.rs"
    ;;
test)
    mapfile -t packages < <(missing_test_packages)
    install_packages "${packages[@]}"
    setup_rust
    setup_codex
    setup_python
    ;;
bench)
    # Debian puts servers where an ordinary user's shell does not look.
    PATH="$PATH:/usr/sbin"
    mapfile -t packages < <(missing_packages nginx:nginx-light)
    install_packages "${packages[@]}"
    command -v cargo >/dev/null || die "please install Rust: https://rustup.rs"
    ;;
*) die "usage: setup.sh build | test | bench" ;;
esac
