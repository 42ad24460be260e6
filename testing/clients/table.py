"""The table of docs/clients.md: which client was run, in which version, through what.

It is made of the tests that passed and of nothing else. A run of all tests here, or of all agents, compares the rows of
its clients with the file and fails if they differ; with CODEX_LB_TEST_UPDATE=1 it writes them.
"""

import os
from pathlib import Path

import pytest

import harness

HERE = Path(__file__).resolve().parent
PAGE = harness.ROOT / "docs" / "clients.md"
BEGIN, END = "<!-- written by the tests: begin -->", "<!-- written by the tests: end -->"
HEADER = ["| client | version | API | what ran |", "|---|---|---|---|"]
FEATURES = [
    "set up as in README",
    "whole answers",
    "streams",
    "usage",
    "usage in streams",
    "tools",
    "parallel tools",
    "reasoning",
    "structured output",
    "images",
    "compaction",
    "failure in a stream",
    "401",
    "429",
    "429 with Retry-After",
    "cancellation",
]


class Table:
    """A pytest plugin."""

    def __init__(self):
        self.rows, self.has_failure, self.message = {}, False, ""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item, call):
        report = yield
        self.has_failure |= report.failed
        features = [feature for mark in item.iter_markers("feature") for feature in mark.args]
        unknown = set(features) - set(FEATURES)
        assert not unknown, f"not in the list of features: {unknown}"
        if call.when == "call" and report.passed and features:
            for mark in item.iter_markers("client"):
                self.rows.setdefault(mark.args, set()).update(features)
        return report

    def pytest_sessionfinish(self, session, exitstatus):
        if exitstatus != 0 or self.has_failure or not self.rows or not is_whole(session.config):
            return
        before = PAGE.read_text()
        after = page(before, self.rows)
        if before == after:
            return
        if os.environ.get("CODEX_LB_TEST_UPDATE") == "1":
            PAGE.write_text(after)
            return
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        self.message = f"{PAGE} does not say what ran: run the tests with CODEX_LB_TEST_UPDATE=1"

    def pytest_terminal_summary(self, terminalreporter):
        if self.message:
            terminalreporter.write_line(self.message, red=True)


def is_whole(config) -> bool:
    """Whether every test of the clients that ran has run: one of the two runs that the stages make."""
    is_narrowed = config.option.keyword or config.option.markexpr
    return not is_narrowed and all(Path(path).resolve() in (HERE, HERE / "agents") for path in config.args)


def page(text: str, rows: dict) -> str:
    """The page with these rows in place of all that it had of the same clients."""
    head, rest = text.split(BEGIN)
    old, tail = rest.split(END)
    clients = {client for client, _, _ in rows}
    kept = [line for line in old.strip().splitlines()[len(HEADER) :] if line.split(" | ")[0][2:] not in clients]
    lines = sorted(kept + [line_of(*key, features) for key, features in rows.items()], key=str.lower)
    return "\n".join([head + BEGIN, *HEADER, *lines, END]) + tail


def line_of(client: str, version: str, api: str, features: set) -> str:
    return f"| {client} | {version} | {api} | {', '.join(sorted(features, key=FEATURES.index))} |"
