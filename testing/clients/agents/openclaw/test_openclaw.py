"""The real OpenClaw through whole turns: set up as README says, and over the other API."""

import json
from pathlib import Path

import pytest

import harness
import readme
import turn
from conftest import Pool
from pins import pinned

HERE = Path(__file__).parent
TURN_SECONDS_MAX = 180
MARK = "codex-lb-was-here"
VERSION = pinned("openclaw", HERE / "package-lock.json")
APIS = [pytest.param(api, marks=pytest.mark.client("OpenClaw", VERSION, api)) for api in ("responses", "chat")]
each_api = pytest.mark.parametrize("api", APIS)


def config(gateway, api: str, api_key: str | None = None) -> dict:
    """What README shows, over this API."""
    config = json.loads(readme.block("openclaw", gateway, api_key))
    names = {"responses": "openai-responses", "chat": "openai-completions"}
    config["models"]["providers"]["codex-lb"]["api"] = names[api]
    return config


def openclaw(directory: Path, config: dict, prompt: str, *options, interrupt_when=None) -> turn.Turn:
    nodes = sorted((HERE / "node_modules").glob("node-*/bin/node"))
    assert nodes, "run `testing/setup.sh test-all`"
    file = directory / "openclaw.json"
    file.write_text(json.dumps(config))
    project = directory / "project"
    arguments = [
        nodes[0], HERE / "node_modules" / "openclaw" / "openclaw.mjs", "agent", "exec", "--config", file,
        "--cwd", project, "--no-auth-env-only", "--json", "--model", "codex-lb/gpt-5.5", prompt, *options,
    ]
    return turn.run(arguments, directory, TURN_SECONDS_MAX, interrupt_when)


def said(run: turn.Turn) -> dict:
    return json.loads(run.output)


def check_usage_shown(run: turn.Turn, pool: Pool):
    """What OpenClaw shows its user is what upstream reported."""
    shown, reported = said(run)["usage"], pool.fake.totals()
    assert shown["input"] + shown["cacheRead"] == reported.input
    assert (shown["cacheRead"], shown["output"]) == (reported.cached, reported.output)
    assert shown["reasoningTokens"] == reported.reasoning


@pytest.fixture
def directory():
    with harness.scratch_directory() as path:
        yield path


@pytest.mark.parametrize("with_key", [False, True], ids=["keyless", "with a key"])
@pytest.mark.client("OpenClaw", VERSION, "responses")
@pytest.mark.feature("set up as in README", "streams", "usage in streams", "tools", "reasoning")
def test_set_up_as_readme_says_a_turn_runs_and_keeps_its_thoughts(pool, directory, with_key):
    api_key = pool.api_key if with_key else None
    as_printed = json.loads(readme.block("openclaw", pool.gateway, api_key))
    run = openclaw(directory, as_printed, f"run: echo {MARK} | tee proof.txt")
    check_turn(run, pool)
    pool.check_upstream_saw_accounts_only(*filter(None, [api_key]))
    assert all((row["api_key_id"] is not None) == with_key for row in pool.recorded(2))
    second = json.loads(pool.fake.model_requests()[1]["body"])["input"]
    reasoning = [item for item in second if item["type"] == "reasoning"]
    assert len(reasoning) == 1 and reasoning[0]["encrypted_content"]


@pytest.mark.client("OpenClaw", VERSION, "chat")
@pytest.mark.feature("streams", "usage in streams", "tools")
def test_a_turn_runs_over_chat_completions(pool, directory):
    check_turn(openclaw(directory, config(pool.gateway, "chat"), f"run: echo {MARK} | tee proof.txt"), pool)


def check_turn(run: turn.Turn, pool: Pool):
    assert run.status == 0, run.errors
    assert (run.project / "proof.txt").read_text().strip() == MARK, "the tool did not run"
    assert MARK in said(run)["final"]
    pool.check_usage(exchanges=2)
    check_usage_shown(run, pool)


@each_api
@pytest.mark.feature("parallel tools")
def test_parallel_calls_come_back_each_with_its_own_result(pool, directory, api):
    calls = [f'exec {{"command":"echo {word} | tee {word}.txt"}}' for word in ("one", "two")]
    run = openclaw(directory, config(pool.gateway, api), f"calls: {'; '.join(calls)}")
    assert run.status == 0, run.errors
    assert [(run.project / f"{word}.txt").read_text().strip() for word in ("one", "two")] == ["one", "two"]
    assert "one; two" in said(run)["final"]
    pool.check_usage(exchanges=2)
    check_usage_shown(run, pool)


@each_api
@pytest.mark.feature("failure in a stream")
def test_a_failure_in_the_middle_of_a_stream_is_seen_and_tried_again(directory, api):
    with harness.running(accounts=1) as (fake, gateway):
        failure = {"kind": "fail_mid_stream", "after_deltas": 2, "code": "server_error", "message": "sorry"}
        fake.script("account-1", [failure])
        run = openclaw(directory, config(gateway, api), "Are you there?")
        assert run.status == 0, run.errors
        assert said(run)["final"].startswith("You said:")
        failed, answered = gateway.wait_for_log(2)
        assert (failed["status"], answered["status"]) == ("error", "ok")


@each_api
@pytest.mark.feature("401")
def test_a_wrong_key_is_refused_and_says_so(locked_pool, directory, api):
    wrong = config(locked_pool.gateway, api, "sk-clb-" + "x" * 43)
    run = openclaw(directory, wrong, "Say hello.")
    assert run.status != 0
    assert "Incorrect API key provided" in run.output + run.errors
    assert locked_pool.fake.model_requests() == []


@each_api
@pytest.mark.feature("429")
def test_a_limited_pool_is_told_with_the_time_to_come_back(directory, api):
    with harness.running(accounts=1) as (fake, gateway):
        fake.script("account-1", [{"kind": "usage_limit", "resets_in_seconds": 600}])
        run = openclaw(directory, config(gateway, api), "Are you there?")
        # It waits for a busy server, but gives a used-up account's limit to its user at once.
        assert run.status != 0
        assert "reached their usage limit" in run.errors and "Retry-After: " in run.errors
        assert len(fake.model_requests()) == 1


@each_api
@pytest.mark.feature("cancellation")
def test_an_interrupt_ends_the_exchange(pool, directory, api):
    for account in ("account-1", "account-2"):
        pool.fake.script(account, [{"kind": "answer", "text_tokens": 10000, "tokens_per_second": 50}])
    openclaw(directory, config(pool.gateway, api), "Go on.", interrupt_when=pool.fake.model_requests)
    assert [row["status"] for row in pool.recorded(1)] == ["cancelled"]
