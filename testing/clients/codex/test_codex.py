"""The real Codex CLI, run through whole turns: prompt, tool call, tool output, answer."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

import harness
import readme
import turn
from conftest import Pool
from pins import pinned

TURN_SECONDS_MAX = 90
MARK = "codex-lb-was-here"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
LIMITED_SECONDS = 6
CLOCK_SECONDS = 0.5
# Quiet: one request per model call, and nothing to anybody else. What README says stands between the two.
HEAD = """\
model = "{model}"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false
"""
TAIL = """
[analytics]
enabled = false
[otel]
metrics_exporter = "none"
exporter = "none"
[features]
plugins = false
apps = false
remote_plugin = false
[projects."{project}"]
trust_level = "trusted"
"""
# The other route: what a provider of any name is set up like.
GENERAL = """\
model_provider = "gateway"

[model_providers.gateway]
name = "gateway"
base_url = "{url}/v1"
wire_api = "responses"
supports_websockets = false
"""
VERSION = pinned("@openai/codex", Path(__file__).parent / "package-lock.json")
pytestmark = pytest.mark.client("Codex CLI", VERSION, "responses")


@dataclass
class Turn:
    status: int
    events: list
    answer: str
    errors: str
    project: Path


def codex_program() -> Path:
    package = Path(__file__).parent / "node_modules" / "@openai" / "codex"
    script = package / "bin" / "codex.js"
    assert script.exists(), "run `make setup`"
    return script


def provider(gateway, with_key: bool = False, is_general: bool = False) -> str:
    """The provider as README sets it up, or one of the general kind."""
    text = GENERAL.format(url=gateway.url) if is_general else readme.block("codex", gateway)
    return text + (readme.block("codex-key", gateway) if with_key else "")


def run_codex(
    directory: Path, provider: str, prompt: str, model: str = "gpt-5.5", api_key: str | None = None,
    resumes: bool = False, settings: str = "", more: tuple = (), interrupt_when=None,
) -> Turn:
    """One `codex exec`."""
    codex_home, project = directory / ".codex", directory / "project"
    codex_home.mkdir(exist_ok=True)
    config = HEAD.format(model=model) + settings + provider + TAIL.format(project=project)
    (codex_home / "config.toml").write_text(config)
    answer = directory / "answer.txt"
    extra = {"CODEX_HOME": str(codex_home)} | ({"CODEX_LB_API_KEY": api_key} if api_key else {})
    options = ["--skip-git-repo-check", "--json", "--output-last-message", answer]
    session = ["resume", "--last"] if resumes else []
    # After the prompt, for an option of many values would take it.
    arguments = ["node", codex_program(), "exec", *options, *session, prompt, *more]
    ran = turn.run(arguments, directory, TURN_SECONDS_MAX, interrupt_when, **extra)
    events = [json.loads(line) for line in ran.output.splitlines() if line.startswith("{")]
    return Turn(ran.status, events, answer.read_text() if answer.exists() else "", ran.errors, project)


def check_usage_shown(turn: Turn, pool):
    """What Codex shows its user is what upstream reported."""
    shown, reported = turn.events[-1]["usage"], pool.fake.totals()
    assert shown["input_tokens"] == reported.input
    assert shown["cached_input_tokens"] == reported.cached
    assert shown["output_tokens"] == reported.output
    assert shown["reasoning_output_tokens"] == reported.reasoning


def tool_outputs(turn: Turn) -> list:
    items = [event["item"] for event in turn.events if event.get("type") == "item.completed"]
    return [item for item in items if item.get("type") == "command_execution"]


@pytest.fixture
def directory():
    with harness.scratch_directory() as path:
        yield path


@pytest.mark.parametrize("is_general", [False, True], ids=["as in README", "/v1"])
@pytest.mark.parametrize("with_key", [False, True], ids=["keyless", "env_key"])
@pytest.mark.feature("set up as in README", "streams", "usage in streams", "tools")
def test_a_turn_with_a_tool_call_runs_to_its_end(pool, directory, is_general, with_key):
    api_key = pool.api_key if with_key else None
    prompt = f"run: echo {MARK} | tee proof.txt"
    turn = run_codex(directory, provider(pool.gateway, with_key, is_general), prompt, api_key=api_key)

    assert turn.status == 0, turn.errors
    assert (turn.project / "proof.txt").read_text().strip() == MARK, "the tool did not run"
    assert any(MARK in item.get("aggregated_output", "") for item in tool_outputs(turn)), turn.events
    assert MARK in turn.answer, "the answer does not hold what the tool printed"
    # One call to choose the tool, one to answer.
    pool.check_usage(exchanges=2)
    check_usage_shown(turn, pool)
    pool.check_upstream_saw_accounts_only(*filter(None, [api_key]))
    rows = pool.recorded(2)
    assert {row["status"] for row in rows} == {"ok"}
    assert all((row["api_key_id"] is not None) == with_key for row in rows)


def test_a_responses_lite_model_keeps_its_tools_in_the_input(pool, directory):
    prompt = f"run: echo {MARK} | tee proof.txt"
    turn = run_codex(directory, provider(pool.gateway), prompt, "gpt-5.6-sol")
    assert turn.status == 0, turn.errors
    assert (turn.project / "proof.txt").read_text().strip() == MARK, "the tool did not run"
    assert MARK in turn.answer
    pool.check_usage(exchanges=2)
    headers = dict(pool.fake.model_requests()[0]["head"]["headers"])
    assert headers.get("x-openai-internal-codex-responses-lite") == "true"


@pytest.mark.feature("401")
def test_a_wrong_key_is_refused_and_says_so(locked_pool, directory):
    with_key = provider(locked_pool.gateway, with_key=True)
    turn = run_codex(directory, with_key, "Say hello.", api_key="sk-clb-" + "x" * 43)
    assert turn.status != 0
    said = turn.errors + json.dumps(turn.events)
    assert "Incorrect API key provided" in said, said
    assert locked_pool.fake.model_requests() == []


@pytest.mark.feature("parallel tools")
def test_parallel_calls_come_back_each_with_its_own_result(pool, directory):
    calls = [f'exec_command {{"cmd":"echo {word} | tee {word}.txt"}}' for word in ("one", "two")]
    turn = run_codex(directory, provider(pool.gateway), f"calls: {'; '.join(calls)}")
    assert turn.status == 0, turn.errors
    assert [(turn.project / f"{word}.txt").read_text().strip() for word in ("one", "two")] == ["one", "two"]
    assert "one; two" in turn.answer
    pool.check_usage(exchanges=2)
    check_usage_shown(turn, pool)


@pytest.mark.feature("structured output")
def test_structured_output_fits_its_schema(pool, directory):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    schema["additionalProperties"] = False
    (directory / "schema.json").write_text(json.dumps(schema))
    more = ("--output-schema", directory / "schema.json")
    turn = run_codex(directory, provider(pool.gateway), "A place.", more=more)
    assert turn.status == 0, turn.errors
    assert set(json.loads(turn.answer)) == {"city"}
    pool.check_usage(exchanges=1)


@pytest.mark.feature("images")
def test_an_image_is_taken_along(pool, directory):
    (directory / "dot.png").write_bytes(PNG)
    turn = run_codex(directory, provider(pool.gateway), "What is it?", more=("--image", directory / "dot.png"))
    assert turn.status == 0, turn.errors
    items = json.loads(pool.fake.model_requests()[0]["body"])["input"]
    parts = [part for item in items for part in item["content"]]
    images = [part["image_url"] for part in parts if part["type"] == "input_image"]
    assert [image[:22] for image in images] == ["data:image/png;base64,"]
    pool.check_usage(exchanges=1)


@pytest.mark.feature("failure in a stream")
def test_a_failure_in_the_middle_of_a_stream_is_seen_and_tried_again(directory):
    with harness.running(accounts=1) as (fake, gateway):
        fake.script("account-1", [{"kind": "cut_mid_stream", "after_deltas": 2}])
        turn = run_codex(directory, provider(gateway), "Are you there?")
        assert turn.status == 0, turn.errors
        assert turn.answer == "You said: Are you there?"
        assert [row["status"] for row in gateway.wait_for_log(2)] == ["error", "ok"]


@pytest.mark.feature("429 with Retry-After")
def test_a_limit_is_waited_out_as_long_as_told(directory):
    with harness.running(accounts=1) as (fake, gateway):
        fake.script("account-1", [{"kind": "usage_limit", "resets_in_seconds": LIMITED_SECONDS}])
        turn = run_codex(directory, provider(gateway), "Are you there?")
        assert turn.status == 0, turn.errors
        limited, answered = gateway.wait_for_log(2)
        assert answered["status"] == "ok"
        waited_ms = answered["requested_at"] - limited["requested_at"]
        assert waited_ms >= (LIMITED_SECONDS - CLOCK_SECONDS) * 1000, "it did not wait as long as it was told"


@pytest.mark.feature("429")
def test_a_pool_that_is_limited_for_long_ends_the_turn_and_says_so(directory):
    with harness.running(accounts=1) as (fake, gateway):
        fake.script("account-1", [{"kind": "usage_limit", "resets_in_seconds": 3600}])
        turn = run_codex(directory, provider(gateway), "Are you there?")
        assert turn.status != 0
        assert "usage limit" in json.dumps(turn.events) + turn.errors
        assert len(gateway.wait_for_log(1)) == 1


@pytest.mark.feature("cancellation")
def test_an_interrupt_ends_the_exchange(pool, directory):
    for account in ("account-1", "account-2"):
        pool.fake.script(account, [{"kind": "answer", "text_tokens": 10000, "tokens_per_second": 50}])
    run_codex(directory, provider(pool.gateway), "Go on.", interrupt_when=pool.fake.model_requests)
    assert [row["status"] for row in pool.recorded(1)] == ["cancelled"]


@pytest.mark.parametrize("with_key", [False, True], ids=["keyless", "env_key"])
@pytest.mark.feature("compaction")
def test_a_conversation_that_grew_too_long_is_compacted_on_the_server(directory, with_key):
    with harness.running(accounts=1, prepare=lambda gateway: gateway.create_api_key("ci")) as running:
        pool = Pool(*running)
        api_key = pool.api_key if with_key else None

        def take_turn(prompt: str, resumes: bool) -> Turn:
            config, settings = provider(pool.gateway, with_key), "model_auto_compact_token_limit = 100000\n"
            turn = run_codex(directory, config, prompt, api_key=api_key, resumes=resumes, settings=settings)
            assert turn.status == 0, turn.errors
            return turn

        usage = {"input": 200_000, "output": 10}
        pool.fake.script("account-1", [{"kind": "answer", "text": "Long indeed.", "usage": usage}])
        assert take_turn("Tell me a long story.", resumes=False).answer == "Long indeed."
        assert MARK in take_turn(f"run: echo {MARK} | tee proof.txt", resumes=True).answer

        inputs = [json.loads(request["body"])["input"] for request in pool.fake.model_requests()]
        kinds = [[item["type"] for item in items] for items in inputs]
        assert [items[-1] == "compaction_trigger" for items in kinds] == [False, True, False, False], kinds
        assert [items.count("compaction") for items in kinds] == [0, 0, 1, 1], kinds
        pool.check_usage(exchanges=4)
        pool.check_upstream_saw_accounts_only(*filter(None, [api_key]))


@pytest.mark.feature("reasoning")
def test_a_session_whose_account_is_used_up_between_two_turns_goes_on_on_another(directory):
    with harness.running(accounts=2) as (fake, gateway):

        def take_turn(number: int) -> tuple:
            seen = len(fake.model_requests())
            prompt = f"run: echo {MARK}-{number} | tee proof-{number}.txt"
            turn = run_codex(directory, provider(gateway), prompt, resumes=number > 1)
            assert turn.status == 0, turn.errors
            assert f"{MARK}-{number}" in turn.answer, turn.answer
            return fake.model_requests()[seen:]

        first = take_turn(1) + take_turn(2)
        accounts = {request["account"] for request in first}
        assert len(accounts) == 1, "a session stays on its account"
        assert '"encrypted_content":"' in first[-1]["body"], "Codex sends back what the model thought"
        used_up = accounts.pop()
        fake.script(used_up, [{"kind": "usage_limit", "resets_in_seconds": 600}])

        third = take_turn(3)
        answered = [request for request in third if request["outcome"]["state"] == "ended"]
        assert [request["status"] for request in third if request["account"] == used_up] == [429]
        assert len(answered) == 2 and used_up not in {request["account"] for request in answered}
        # What the other account could not read was left out, and the turn's own thoughts came back to it.
        assert '"encrypted_content":"' not in answered[0]["body"]
        rows = gateway.wait_for_log(6)
        assert [row["status"] for row in rows] == ["ok"] * 6
        reported = fake.totals()
        assert sum(row["input_tokens"] for row in rows) == reported.input
        assert sum(row["output_tokens"] for row in rows) == reported.output
