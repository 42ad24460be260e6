#!/usr/bin/env bash
# Installs what building (`setup.sh build`), testing (`setup.sh test`, `setup.sh test-all`) or benchmarking
# (`setup.sh bench`) needs and is not there. Again is quick.
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

# Installs a directory's pinned npm packages; more arguments go to npm.
setup_npm() {
    local directory=$1
    local stamp=$directory/node_modules/.installed
    cmp -s "$directory/package-lock.json" "$stamp" && return 0
    npm ci --prefix "$directory" --no-audit --no-fund "${@:2}"
    cp "$directory/package-lock.json" "$stamp"
}

# Makes a virtual environment of pinned packages.
setup_python() {
    local venv=$1 requirements=$2
    local stamp=$venv/.installed
    cmp -s "$requirements" "$stamp" && return 0
    python3 -m venv --clear "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements"
    cp "$requirements" "$stamp"
}

setup_clients() {
    local clients=testing/clients
    setup_npm $clients/codex
    setup_npm $clients/sdks --ignore-scripts
    setup_python .venv $clients/python/requirements.txt
    # Apart: LiteLLM wants an older OpenAI SDK, and LangChain brings a plugin for pytest.
    setup_python $clients/sdks/langchain/.venv $clients/sdks/langchain/requirements.txt
    setup_python $clients/sdks/litellm/.venv $clients/sdks/litellm/requirements.txt
}

# More than a gigabyte, so only where `make test-all` asks for it. Their install scripts fetch or build what no test needs.
setup_agents() {
    setup_npm testing/clients/agents/opencode --ignore-scripts
    setup_npm testing/clients/agents/openclaw --ignore-scripts
}

case ${1:-} in
build)
    mapfile -t packages < <(missing_packages)
    install_packages "${packages[@]}"
    command -v cargo >/dev/null || die "please install Rust: https://rustup.rs"
    ;;
test | test-all)
    mapfile -t packages < <(missing_test_packages)
    install_packages "${packages[@]}"
    setup_rust
    setup_clients
    [ "$1" = test ] || setup_agents
    ;;
bench)
    # Debian puts servers where an ordinary user's shell does not look.
    PATH="$PATH:/usr/sbin"
    mapfile -t packages < <(missing_packages nginx:nginx-light)
    install_packages "${packages[@]}"
    command -v cargo >/dev/null || die "please install Rust: https://rustup.rs"
    ;;
*) die "usage: setup.sh build | test | test-all | bench" ;;
esac
