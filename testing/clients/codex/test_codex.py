"""The real Codex CLI, run through whole turns: prompt, tool call, tool output, answer."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

import harness
import readme
from conftest import Pool
from pins import pinned

TURN_SECONDS_MAX = 90
MARK = "codex-lb-was-here"
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
    resumes: bool = False, settings: str = "",
) -> Turn:
    """One `codex exec`."""
    home, project = directory / "home", directory / "project"
    codex_home = home / ".codex"
    codex_home.mkdir(parents=True, exist_ok=True)
    project.mkdir(exist_ok=True)
    config = HEAD.format(model=model) + settings + provider + TAIL.format(project=project)
    (codex_home / "config.toml").write_text(config)
    answer = directory / "answer.txt"
    extra = {"CODEX_HOME": str(codex_home)} | ({"CODEX_LB_API_KEY": api_key} if api_key else {})
    options = ["--skip-git-repo-check", "--json", "--output-last-message", answer]
    session = ["resume", "--last"] if resumes else []
    result = subprocess.run(
        ["node", codex_program(), "exec", *options, *session, prompt],
        cwd=project, env=harness.clean_environment(home, **extra), stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=TURN_SECONDS_MAX,
    )
    events = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    return Turn(result.returncode, events, answer.read_text() if answer.exists() else "", result.stderr, project)


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


@pytest.mark.parametrize("with_key", [False, True], ids=["keyless", "env_key"])
@pytest.mark.feature("compaction")
def test_a_conversation_that_grew_too_long_is_compacted_on_the_server(directory, with_key):
    with harness.running(accounts=1, prepare=lambda gateway: gateway.create_api_key("ci")) as running:
        pool = Pool(*running)
        api_key = pool.api_key if with_key else None

        def turn(prompt: str, resumes: bool) -> Turn:
            config, settings = provider(pool.gateway, with_key), "model_auto_compact_token_limit = 100000\n"
            turn = run_codex(directory, config, prompt, api_key=api_key, resumes=resumes, settings=settings)
            assert turn.status == 0, turn.errors
            return turn

        usage = {"input": 200_000, "output": 10}
        pool.fake.script("account-1", [{"kind": "answer", "text": "Long indeed.", "usage": usage}])
        assert turn("Tell me a long story.", resumes=False).answer == "Long indeed."
        assert MARK in turn(f"run: echo {MARK} | tee proof.txt", resumes=True).answer

        inputs = [json.loads(request["body"])["input"] for request in pool.fake.model_requests()]
        kinds = [[item["type"] for item in items] for items in inputs]
        assert [items[-1] == "compaction_trigger" for items in kinds] == [False, True, False, False], kinds
        assert [items.count("compaction") for items in kinds] == [0, 0, 1, 1], kinds
        pool.check_usage(exchanges=4)
        pool.check_upstream_saw_accounts_only(*filter(None, [api_key]))


@pytest.mark.feature("reasoning")
def test_a_session_whose_account_is_used_up_between_two_turns_goes_on_on_another(directory):
    with harness.running(accounts=2) as (fake, gateway):

        def turn(number: int) -> tuple:
            seen = len(fake.model_requests())
            prompt = f"run: echo {MARK}-{number} | tee proof-{number}.txt"
            turn = run_codex(directory, provider(gateway), prompt, resumes=number > 1)
            assert turn.status == 0, turn.errors
            assert f"{MARK}-{number}" in turn.answer, turn.answer
            return fake.model_requests()[seen:]

        first = turn(1) + turn(2)
        accounts = {request["account"] for request in first}
        assert len(accounts) == 1, "a session stays on its account"
        assert '"encrypted_content":"' in first[-1]["body"], "Codex sends back what the model thought"
        used_up = accounts.pop()
        fake.script(used_up, [{"kind": "usage_limit", "resets_in_seconds": 600}])

        third = turn(3)
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
