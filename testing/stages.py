#!/usr/bin/env python3
"""Runs the stages of `make test` and `make test-all` one after the other.

Each stage says its name, its time and how many tests passed. A stage that ran no test fails, and so does one that left
a test out: both look like success otherwise. The first failing stage ends the run with its name and a status above 0.
"""

import os
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

ROOT = Path(__file__).resolve().parent.parent
# These bring a second TLS stack, and rustls refuses to start when two are there.
FORBIDDEN_CRATES = ["aws-lc-rs", "aws-lc-sys", "openssl-sys"]
STAGE_SECONDS_MAX = 3600
AGENTS = "testing/clients/agents"


class Failure(Exception):
    """Why a stage failed."""


@dataclass(frozen=True)
class Stage:
    """A name, and what runs it: it returns how many tests passed or raises Failure."""

    name: str
    run: Callable[["Context"], int]


@dataclass
class Context:
    env: dict = field(default_factory=lambda: dict(os.environ))

    def command(self, *arguments: str) -> str:
        """Runs a command, shows its output as it comes, and returns it. Raises Failure if it fails."""
        print("$ " + " ".join(arguments), flush=True)
        process = subprocess.Popen(
            arguments,
            cwd=ROOT,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        timer = threading.Timer(STAGE_SECONDS_MAX, process.kill)
        timer.start()
        output = []
        try:
            for line in process.stdout:
                text = line.decode(errors="replace")
                output.append(text)
                sys.stdout.write(text)
                sys.stdout.flush()
            status = process.wait()
        except BaseException:
            process.kill()
            raise
        finally:
            timer.cancel()
        if status != 0:
            raise Failure(f"`{' '.join(arguments)}` ended with status {status}")
        return "".join(output)


def check_format(context: Context) -> int:
    context.command("cargo", "fmt", "--all", "--check")
    return 1


def check_lints(context: Context) -> int:
    context.command("cargo", "clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings")
    return 1


def check_crates(context: Context) -> int:
    """`cargo tree -i` of a crate that is not there fails with these words; any other outcome is a finding."""
    for crate in FORBIDDEN_CRATES:
        arguments = ["cargo", "tree", "--workspace", "--target", "all", "--edges", "all", "--invert", crate, "--locked"]
        result = subprocess.run(arguments, cwd=ROOT, env=context.env, capture_output=True, text=True)
        is_absent = "did not match any packages" in result.stderr or "nothing to print" in result.stderr
        if result.stdout.strip() or not is_absent:
            print(result.stdout + result.stderr)
            raise Failure(f"{crate} is in the dependency tree")
        print(f"no {crate}")
    return len(FORBIDDEN_CRATES)


def start_postgres(context: Context):
    for line in context.command("testing/postgres.sh", "start").splitlines():
        name, _, value = line.removeprefix("export ").partition("=")
        context.env[name] = value


def run_rust_tests(context: Context) -> int:
    start_postgres(context)
    output = context.command("cargo", "nextest", "run", "--workspace", "--locked", "--color", "never")
    return rust_tests_passed(output)


def run_long_tests(context: Context) -> int:
    """The tests that take their size from the environment, once more and at length."""
    start_postgres(context)
    command = ["cargo", "nextest", "run", "--workspace", "--locked", "--color", "never", "--profile", "long"]
    names = "|".join(sorted({test.partition("::")[0] for test in LONG_TESTS}))
    sizes = [f"{name}={value}" for name, value in LONG_SIZES.items()]
    output = context.command("env", *sizes, *command, "--filterset", f"test(/^({names})::/)")
    return long_tests_passed(output)


def run_client_tests(context: Context) -> int:
    context.command("cargo", "build", "--locked", "--workspace", "--bins")
    return python_tests_passed(context.command(".venv/bin/pytest", "testing/clients", f"--ignore={AGENTS}"))


def run_agent_tests(context: Context) -> int:
    """Coding agents: large to install and slow to run."""
    context.command("cargo", "build", "--locked", "--workspace", "--bins")
    return python_tests_passed(context.command(".venv/bin/pytest", AGENTS))


def rust_tests_passed(output: str) -> int:
    summary = re.search(r"Summary \[.*?\] +(\d+) tests? run: (\d+) passed(?: \([^)]*\))?(?:, (\d+) skipped)?", output)
    if not summary:
        raise Failure("cargo nextest printed no summary")
    run, passed, skipped = (int(number or 0) for number in summary.groups())
    if skipped or run != passed:
        raise Failure(f"{run} tests ran, {passed} passed and {skipped} were left out")
    return passed


def long_tests_passed(output: str) -> int:
    """All others are left out on purpose, so every one that is wanted must be seen to have passed."""
    passed = set(re.findall(r"^ +PASS \[.*?\] +(?:\([^)]*\) +)?codex-lb::gateway (\S+)$", output, re.MULTILINE))
    missing = sorted(set(LONG_TESTS) - passed)
    if missing:
        raise Failure(f"not seen to pass: {missing}")
    return len(LONG_TESTS)


def python_tests_passed(output: str) -> int:
    summary = output.strip().splitlines()[-1]
    words = "passed|failed|skipped|errors?|deselected|xfailed|xpassed"
    counts = {word: int(number) for number, word in re.findall(rf"(\d+) ({words})", summary)}
    left_out = {word: number for word, number in counts.items() if word != "passed" and number}
    if left_out:
        raise Failure(f"not every test passed: {left_out}")
    return counts.get("passed", 0)


# What `make test` runs at the sizes that the tests have by themselves.
LONG_SIZES = {"CODEX_LB_FAULT_EXCHANGES": 10_000, "CODEX_LB_PLACEMENTS": 5_000, "CODEX_LB_WAITING_ROUNDS": 10}
LONG_TESTS = [
    "faults::no_client_sees_a_failure_that_a_healthy_account_could_have_served",
    "faults::the_same_holds_over_http_2",
    "replicas::two_replicas_place_a_conversation_that_both_meet_at_once_alike",
    "waiting::sixty_four_clients_on_28_slots_wait_a_little_and_nobody_is_refused",
]

TEST = [
    Stage("format", check_format),
    Stage("lints", check_lints),
    Stage("forbidden crates", check_crates),
    Stage("rust tests", run_rust_tests),
    Stage("real clients", run_client_tests),
]
TEST_ALL = TEST + [Stage("rust tests at length", run_long_tests), Stage("real agents", run_agent_tests)]
SUITES = {"test": TEST, "test-all": TEST_ALL}


def run_suite(stages: list) -> int:
    context = Context()
    total = 0
    lines = []
    for stage in stages:
        print(f"\n=== {stage.name}", flush=True)
        started = time.monotonic()
        try:
            passed = stage.run(context)
            if passed == 0:
                raise Failure("no test ran")
        except Failure as failure:
            print(f"\n=== {stage.name}: FAILED after {time.monotonic() - started:.1f} s: {failure}")
            print(f"\nstage failed: {stage.name} ({total} passed before it)")
            return 1
        total += passed
        lines.append(f"=== {stage.name}: {passed} passed in {time.monotonic() - started:.1f} s")
        print(lines[-1], flush=True)
    print("\n" + "\n".join(lines))
    print(f"\n{total} passed, 0 failed")
    return 0


def main() -> int:
    names = sys.argv[1:]
    if len(names) < 1 or names[0] not in SUITES:
        print(f"usage: stages.py {' | '.join(SUITES)} [stage ...]", file=sys.stderr)
        return 2
    stages = SUITES[names[0]]
    wanted = names[1:]
    unknown = [name for name in wanted if name not in [stage.name for stage in stages]]
    if unknown:
        print(f"no such stage: {', '.join(unknown)}", file=sys.stderr)
        return 2
    return run_suite([stage for stage in stages if not wanted or stage.name in wanted])


if __name__ == "__main__":
    sys.exit(main())
