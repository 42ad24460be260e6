"""The table of docs/clients.md: rows come from tests that passed, and a run replaces its own clients' rows only."""

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
