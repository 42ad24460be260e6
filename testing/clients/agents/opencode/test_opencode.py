"""The real OpenCode through whole turns: set up as README says, and with the two other providers that it brings."""

import base64
import json
from pathlib import Path

import pytest

import harness
import readme
import turn
from conftest import Pool
from pins import pinned

HERE = Path(__file__).parent
TURN_SECONDS_MAX = 120
MARK = "codex-lb-was-here"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
LIMITED_SECONDS = 6
CLOCK_SECONDS = 0.5
# One request per model call, and nothing to anybody else.
QUIET = {"autoupdate": False, "share": "disabled", "permission": {"bash": "allow", "edit": "allow"}}
ENV = {
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
    "npm_config_offline": "true",
}
VERSION = pinned("opencode-linux-x64", HERE / "package-lock.json")


def row(provider: str, api: str):
    mark = pytest.mark.client(f"OpenCode, {provider}", VERSION, api)
    return pytest.param(provider, id=provider, marks=mark)


PROVIDERS = [
    row("@openrouter/ai-sdk-provider", "chat"),
    row("@ai-sdk/openai-compatible", "chat"),
    row("@ai-sdk/openai", "responses"),
]
each_provider = pytest.mark.parametrize("provider", PROVIDERS)


def config(gateway, provider: str | None = None, api_key: str | None = None) -> dict:
    """What README shows, with another provider if one is named."""
    config = json.loads(readme.block("opencode", gateway, api_key))
    if provider:
        config["provider"]["codex-lb"]["npm"] = provider
    return config


def opencode(directory: Path, config: dict, prompt: str, *options, interrupt_when=None) -> turn.Turn:
    program = HERE / "node_modules" / "opencode-linux-x64" / "bin" / "opencode"
    assert program.exists(), "run `testing/setup.sh test-all`"
    place = directory / ".config" / "opencode"
    place.mkdir(parents=True, exist_ok=True)
    (place / "opencode.json").write_text(json.dumps({**config, **QUIET}))
    quiet = ["--pure", "--format", "json", "--title", "t"]
    arguments = [program, "run", *quiet, "--model", "codex-lb/gpt-5.5", prompt, *options]
    return turn.run(arguments, directory, TURN_SECONDS_MAX, interrupt_when, **ENV)


def events(run: turn.Turn, kind: str) -> list:
    lines = [json.loads(line) for line in run.output.splitlines() if line.startswith("{")]
    return [line["part"] for line in lines if line["type"] == kind]


def answer(run: turn.Turn) -> str:
    return "".join(part["text"] for part in events(run, "text"))


def check_usage_shown(run: turn.Turn, pool: Pool):
    """What OpenCode shows its user is what upstream reported."""
    told = [part["tokens"] for part in events(run, "step_finish")]
    reported = pool.fake.totals()
    assert sum(tokens["input"] + tokens["cache"]["read"] for tokens in told) == reported.input
    assert sum(tokens["output"] + tokens["reasoning"] for tokens in told) == reported.output


def sent(pool: Pool) -> list:
    return [json.loads(request["body"])["input"] for request in pool.fake.model_requests()]


@pytest.fixture
def directory():
    with harness.scratch_directory() as path:
        yield path


@pytest.mark.parametrize("with_key", [False, True], ids=["keyless", "with a key"])
@pytest.mark.client("OpenCode, @openrouter/ai-sdk-provider", VERSION, "chat")
@pytest.mark.feature("set up as in README", "streams", "usage in streams", "tools", "reasoning")
def test_set_up_as_readme_says_a_turn_runs_and_keeps_its_thoughts(pool, directory, with_key):
    api_key = pool.api_key if with_key else None
    run = opencode(directory, config(pool.gateway, api_key=api_key), f"run: echo {MARK} | tee proof.txt")
    assert run.status == 0, run.errors
    assert (run.project / "proof.txt").read_text().strip() == MARK, "the tool did not run"
    assert MARK in answer(run)
    pool.check_usage(exchanges=2)
    check_usage_shown(run, pool)
    pool.check_upstream_saw_accounts_only(*filter(None, [api_key]))
    assert all((row["api_key_id"] is not None) == with_key for row in pool.recorded(2))
    reasoning = [item for item in sent(pool)[1] if item["type"] == "reasoning"]
    assert len(reasoning) == 1 and reasoning[0]["encrypted_content"]


@each_provider
@pytest.mark.feature("streams", "usage in streams", "tools", "parallel tools")
def test_parallel_calls_come_back_each_with_its_own_result(directory, provider):
    # Scripted, for OpenCode puts prompts into quotes and would spoil what the fake reads in them.
    commands = [{"command": f"echo {word} | tee {word}.txt", "description": "says"} for word in ("one", "two")]
    calls = [{"name": "bash", "arguments": arguments} for arguments in commands]
    with harness.running(accounts=1) as (fake, gateway):
        fake.script("account-1", [{"kind": "answer", "text_tokens": 0, "reasoning": True, "function_calls": calls}])
        run = opencode(directory, config(gateway, provider), "Say both.")
        assert run.status == 0, run.errors
        assert [(run.project / f"{word}.txt").read_text().strip() for word in ("one", "two")] == ["one", "two"]
        assert "one; two" in answer(run)
        pool = Pool(fake, gateway, is_new=True)
        pool.check_usage(exchanges=2)
        check_usage_shown(run, pool)


@each_provider
@pytest.mark.feature("images")
def test_an_image_is_taken_along(pool, directory, provider):
    (directory / "dot.png").write_bytes(PNG)
    run = opencode(directory, config(pool.gateway, provider), "What is it?", "--file", directory / "dot.png")
    assert run.status == 0, run.errors
    assert "You said:" in answer(run)
    messages = [item for item in sent(pool)[0] if item.get("role") == "user"]
    images = [part for message in messages for part in message["content"] if part["type"] == "input_image"]
    assert [image["image_url"][:22] for image in images] == ["data:image/png;base64,"]
    pool.check_usage(exchanges=1)


@each_provider
@pytest.mark.feature("failure in a stream")
def test_a_failure_in_the_middle_of_a_stream_is_seen_and_tried_again(directory, provider):
    with harness.running(accounts=1) as (fake, gateway):
        failure = {"kind": "fail_mid_stream", "after_deltas": 2, "code": "server_error", "message": "sorry"}
        fake.script("account-1", [failure])
        run = opencode(directory, config(gateway, provider), "Are you there?")
        assert run.status == 0, run.errors
        assert answer(run).endswith('You said: "Are you there?"'), run.output
        assert [row["status"] for row in gateway.wait_for_log(2)] == ["error", "ok"]


@each_provider
@pytest.mark.feature("401")
def test_a_wrong_key_is_refused_and_says_so(locked_pool, directory, provider):
    wrong = config(locked_pool.gateway, provider, "sk-clb-" + "x" * 43)
    run = opencode(directory, wrong, "Say hello.")
    assert run.status != 0
    assert "Incorrect API key provided" in run.output + run.errors
    assert locked_pool.fake.model_requests() == []


@each_provider
@pytest.mark.feature("429 with Retry-After")
def test_a_limit_is_waited_out_as_long_as_told(directory, provider):
    with harness.running(accounts=1) as (fake, gateway):
        fake.script("account-1", [{"kind": "usage_limit", "resets_in_seconds": LIMITED_SECONDS}])
        run = opencode(directory, config(gateway, provider), "Are you there?")
        assert run.status == 0, run.errors
        limited, answered = gateway.wait_for_log(2)
        assert (limited["error_code"], answered["status"]) == ("usage_limit_reached", "ok")
        waited_ms = answered["requested_at"] - limited["requested_at"]
        assert waited_ms >= (LIMITED_SECONDS - CLOCK_SECONDS) * 1000, "it did not wait as long as it was told"


@each_provider
@pytest.mark.feature("cancellation")
def test_an_interrupt_ends_the_exchange(pool, directory, provider):
    for account in ("account-1", "account-2"):
        pool.fake.script(account, [{"kind": "answer", "text_tokens": 10000, "tokens_per_second": 50}])
    opencode(directory, config(pool.gateway, provider), "Go on.", interrupt_when=pool.fake.model_requests)
    assert [row["status"] for row in pool.recorded(1)] == ["cancelled"]
