"""The table of docs/clients.md: rows come from tests that passed, and a run replaces its own clients' rows only."""

from types import SimpleNamespace

import pytest

import table

PAGE = f"""Words.

{table.BEGIN}
| client | version | API | what ran |
|---|---|---|---|
| Alpha | 1.0 | chat | streams |
| Alpha | 1.0 | responses | streams |
| Beta | 3.1 | chat | images |
{table.END}

More words.
"""


def test_a_run_replaces_the_rows_of_its_clients_and_keeps_the_others():
    written = table.page(PAGE, {("Alpha", "2.0", "chat"): {"tools", "streams"}})
    assert "| Alpha | 2.0 | chat | streams, tools |\n| Beta | 3.1 | chat | images |\n" in written
    assert "1.0" not in written
    assert written.startswith("Words.") and written.endswith("More words.\n")


def test_the_same_run_writes_the_same_page():
    rows = {
        ("Alpha", "1.0", "chat"): {"streams"},
        ("Alpha", "1.0", "responses"): {"streams"},
        ("Beta", "3.1", "chat"): {"images"},
    }
    assert table.page(PAGE, rows) == PAGE


@pytest.fixture
def finish(tmp_path, monkeypatch):
    """Ends a run of these rows over the page; returns the run's status and what the page then says."""
    monkeypatch.setattr(table, "PAGE", tmp_path / "clients.md")
    monkeypatch.delenv("CODEX_LB_TEST_UPDATE", raising=False)

    def finish(rows: dict, arguments=(str(table.HERE),), keyword="") -> tuple:
        table.PAGE.write_text(PAGE)
        option = SimpleNamespace(keyword=keyword, markexpr="")
        session = SimpleNamespace(config=SimpleNamespace(option=option, args=list(arguments)), exitstatus=0)
        run = table.Table()
        run.rows = rows
        run.pytest_sessionfinish(session, exitstatus=0)
        return session.exitstatus, table.PAGE.read_text()

    return finish


def test_a_run_that_the_page_does_not_tell_of_fails(finish):
    new = {("Beta", "3.2", "chat"): {"images"}}
    assert finish(new) == (pytest.ExitCode.TESTS_FAILED, PAGE)
    assert finish({("Beta", "3.1", "chat"): {"images"}}) == (0, PAGE)


def test_a_part_of_a_run_says_nothing_of_the_page(finish):
    new = {("Beta", "3.2", "chat"): {"images"}}
    assert finish(new, keyword="images") == (0, PAGE)
    assert finish(new, arguments=[str(table.HERE / "sdks")]) == (0, PAGE)


def test_a_run_that_may_write_the_page_writes_it(finish, monkeypatch):
    monkeypatch.setenv("CODEX_LB_TEST_UPDATE", "1")
    status, written = finish({("Beta", "3.2", "chat"): {"images"}})
    assert status == 0 and "| Beta | 3.2 | chat | images |" in written and "3.1" not in written
