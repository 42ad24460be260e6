"""The Python that README shows, run as it stands."""

import subprocess
import sys
from pathlib import Path

import pytest

import harness
import readme
from pins import pinned

VERSION = pinned("openai", Path(__file__).parent / "requirements.txt")


@pytest.mark.parametrize("with_key", [False, True], ids=["keyless", "with a key"])
@pytest.mark.parametrize(
    "block",
    [
        pytest.param("python", marks=pytest.mark.client("OpenAI Python SDK", VERSION, "responses")),
        pytest.param("python-chat", marks=pytest.mark.client("OpenAI Python SDK", VERSION, "chat")),
    ],
)
@pytest.mark.feature("set up as in README")
def test_what_readme_shows_runs_and_answers(pool, block, with_key):
    script = readme.block(block, pool.gateway, pool.api_key if with_key else None)
    with harness.scratch_directory() as home:
        result = subprocess.run(
            [sys.executable, "-c", script],
            env=harness.clean_environment(home), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )
    assert result.stdout.strip() == "You said: Name three rivers.", result.stderr
    pool.check_usage(exchanges=1)
    assert (pool.recorded(1)[0]["api_key_id"] is not None) == with_key
    pool.check_upstream_saw_accounts_only(pool.api_key)
