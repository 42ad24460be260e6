# What people and machines type. Each target says what it does; the work is in testing/.

.DEFAULT_GOAL := help
.PHONY: help setup run demo test test-all mutants bench fmt env-example clean-test

help: ## Shows the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## Installs what building and testing need and is not there.
	@testing/setup.sh test

run: ## Builds the gateway and runs it on the default ports.
	@testing/setup.sh build
	cargo run --package codex-lb -- serve

demo: ## Runs the gateway against a fake ChatGPT with three accounts and some traffic; Ctrl-C ends it.
	@testing/setup.sh build
	cargo build --workspace --bins
	@python3 testing/demo.py

test: setup ## Checks format, lints and dependencies, and runs all tests on SQLite, PostgreSQL and with real clients.
	@python3 testing/stages.py test

test-all: ## Like test, and whatever takes longer; installs a gigabyte of coding agents.
	@testing/setup.sh test-all
	@python3 testing/stages.py test-all

mutants: ## Changes the data plane's decisions one small thing at a time, and fails if no test notices; some 40 minutes.
	@cargo nextest --version >/dev/null 2>&1 || cargo install cargo-nextest --locked
	@cargo mutants --version >/dev/null 2>&1 || cargo install cargo-mutants --locked
	PROPTEST_CASES=48 CARGO_INCREMENTAL=1 CARGO_TARGET_DIR="$(CURDIR)/target/mutants" \
		cargo mutants --package codex-lb-decide --output target $(MUTANTS)

bench: ## Compares the gateway with nginx in about four minutes; BENCH=--quick takes one. See docs/benchmark.md.
	@testing/setup.sh bench
	cargo build --release --workspace --bins
	@ulimit -n "$$(ulimit -H -n)" && PATH="$$PATH:/usr/sbin" "$${CARGO_TARGET_DIR:-target}/release/codex-lb-load" $(BENCH)

fmt: ## Formats the Rust code.
	cargo fmt --all

env-example: ## Writes .env.example from conf/default.toml.
	CODEX_LB_TEST_UPDATE=1 cargo nextest run --package codex-lb-shared --lib the_example_environment_file_is_up_to_date

clean-test: ## Stops the test database and removes what tests left behind.
	testing/postgres.sh stop
	rm -rf testing/.work target/demo
