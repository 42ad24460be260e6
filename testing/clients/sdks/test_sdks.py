"""Client libraries that speak the OpenAI API, each through the same promises, over each API that it has."""

import json
from dataclasses import dataclass

import pytest

import harness
from clients import CLIENTS, Client, Driver

OUTPUTS = ["rain, 7 degrees", "sun, 25 degrees"]
# More than any of them waits by itself before its first retry.
LIMITED_SECONDS = 3
# The clock that was read when the limit was told is older than the row's by what the answer took.
CLOCK_SECONDS = 0.5

# Every client over every API that it has.
PAIRS = [
    pytest.param(client, api, id=f"{client.title}-{api}", marks=pytest.mark.client(client.title, client.version, api))
    for client in CLIENTS
    for api in client.apis
]
each_client = pytest.mark.parametrize(("client", "api"), PAIRS)
whole_and_streamed = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@dataclass
class Caller:
    """One client library, over one of its APIs, at one gateway."""

    driver: Driver
    api: str
    url: str
    api_key: str

    def do(self, what: str, prompt: str = "Hello.", stream: bool = False, retries: int = 0, **more) -> dict:
        where = {"url": self.url, "api_key": self.api_key, "api": self.api}
        return self.driver.do({**where, "do": what, "prompt": prompt, "stream": stream, "retries": retries, **more})


@pytest.fixture(scope="module")
def drivers():
    """Libraries take seconds to load, so each is loaded once, when it is first asked for."""
    started = {}
    with harness.scratch_directory() as directory:

        def driver(client: Client) -> Driver:
            if client not in started:
                home = directory / client.title
                home.mkdir(exist_ok=True)
                started[client] = Driver(client, home)
                assert started[client].version == client.version, "not what the lock file pins"
            return started[client]

        yield driver
        for each in started.values():
            each.stop()


@pytest.fixture
def call(drivers, client, api):
    """Makes a caller for a gateway."""
    return lambda gateway, api_key="unused": Caller(drivers(client), api, gateway.url, api_key)


@each_client
@pytest.mark.feature("whole answers", "usage")
def test_a_plain_answer_is_whole_and_tells_its_usage(pool, call):
    answer = call(pool.gateway).do("ask", "Name three rivers.")
    assert answer.get("text") == "You said: Name three rivers.", answer
    assert harness.Totals(**answer["usage"]) == pool.fake.totals()
    pool.check_usage(exchanges=1)


@each_client
@pytest.mark.feature("streams", "usage in streams")
def test_a_stream_adds_up_and_tells_its_usage(pool, call):
    answer = call(pool.gateway).do("ask", "Count to three.", stream=True)
    assert answer.get("text") == "You said: Count to three.", answer
    assert harness.Totals(**answer["usage"]) == pool.fake.totals()
    pool.check_usage(exchanges=1)


@each_client
@whole_and_streamed
@pytest.mark.feature("tools")
def test_a_call_comes_back_with_its_result(pool, call, stream):
    answer = call(pool.gateway).do("tools", 'call: get_weather {"city":"Oslo"}', stream, outputs=OUTPUTS[:1])
    assert answer.get("calls") == [{"name": "get_weather", "arguments": {"city": "Oslo"}}], answer
    assert OUTPUTS[0] in answer["text"]
    pool.check_usage(exchanges=2)


@each_client
@whole_and_streamed
@pytest.mark.feature("parallel tools")
def test_parallel_calls_come_back_each_with_its_own_result(pool, call, stream):
    prompt = 'calls: get_weather {"city":"Oslo"}; get_weather {"city":"Rome"}'
    answer = call(pool.gateway).do("tools", prompt, stream, outputs=OUTPUTS)
    assert [each["arguments"]["city"] for each in answer.get("calls", [])] == ["Oslo", "Rome"], answer
    assert "; ".join(OUTPUTS) in answer["text"]
    sent = json.loads(pool.fake.model_requests()[-1]["body"])["input"]
    asked = [item["call_id"] for item in sent if item.get("type") == "function_call"]
    answered = {item["call_id"]: item["output"] for item in sent if item.get("type") == "function_call_output"}
    assert [answered[call_id] for call_id in asked] == OUTPUTS
    pool.check_usage(exchanges=2)


@each_client
@whole_and_streamed
@pytest.mark.feature("structured output")
def test_structured_output_fits_its_schema(pool, call, stream):
    answer = call(pool.gateway).do("structured", "A place.", stream)
    assert set(answer.get("parsed", {})) == {"city", "rivers"}, answer
    sent = json.loads(pool.fake.model_requests()[-1]["body"])["text"]["format"]
    assert sent["type"] == "json_schema" and set(sent["schema"]["properties"]) == {"city", "rivers"}
    pool.check_usage(exchanges=1)


@each_client
@pytest.mark.feature("images")
def test_an_image_is_taken_along(pool, call):
    answer = call(pool.gateway).do("image", "What is it?")
    assert answer.get("text") == "You said: What is it?", answer
    messages = json.loads(pool.fake.model_requests()[-1]["body"])["input"]
    parts = [part for message in messages for part in message["content"]]
    assert [part["type"] for part in parts] == ["input_text", "input_image"]
    assert parts[1]["image_url"].startswith("data:image/png;base64,iVBOR")
    pool.check_usage(exchanges=1)


@each_client
@whole_and_streamed
@pytest.mark.feature("401")
def test_a_wrong_key_is_refused_and_says_so(locked_pool, call, stream):
    failure = call(locked_pool.gateway, "sk-clb-" + "x" * 43).do("ask", stream=stream)["error"]
    assert failure["status"] == 401, failure
    assert "Incorrect API key provided" in failure["message"]
    assert locked_pool.fake.model_requests() == []


@each_client
@pytest.mark.feature("401")
def test_the_right_key_is_let_in_and_stays_here(locked_pool, call):
    answer = call(locked_pool.gateway, locked_pool.api_key).do("ask")
    assert answer.get("text") == "You said: Hello.", answer
    locked_pool.check_usage(exchanges=1)
    locked_pool.check_upstream_saw_accounts_only(locked_pool.api_key)
    assert locked_pool.recorded(1)[0]["api_key_id"]


@pytest.mark.parametrize(("client", "api"), [pair for pair in PAIRS if pair.values[1] in pair.values[0].waits])
@pytest.mark.feature("429 with Retry-After")
def test_a_limit_is_waited_out_as_long_as_told(call):
    # One account, so that its limit is the pool's.
    with harness.running(accounts=1) as (fake, gateway):
        fake.script("account-1", [{"kind": "usage_limit", "resets_in_seconds": LIMITED_SECONDS}])
        answer = call(gateway).do("ask", retries=2)
        assert answer.get("text") == "You said: Hello.", answer
        limited, answered = gateway.wait_for_log(2)
        assert (limited["error_code"], answered["status"]) == ("usage_limit_reached", "ok")
        waited_ms = answered["requested_at"] - limited["requested_at"]
        assert waited_ms >= (LIMITED_SECONDS - CLOCK_SECONDS) * 1000, "it did not wait as long as it was told"


@each_client
@whole_and_streamed
@pytest.mark.feature("429")
def test_a_limited_pool_is_told_as_a_rate_limit(call, stream):
    with harness.running(accounts=1) as (fake, gateway):
        fake.script("account-1", [{"kind": "usage_limit", "resets_in_seconds": 600}])
        failure = call(gateway).do("ask", stream=stream)["error"]
        assert failure["status"] == 429, failure
        assert len(fake.model_requests()) == 1


@each_client
@pytest.mark.feature("failure in a stream")
def test_a_failure_in_the_middle_of_a_stream_is_raised(call):
    failures = [
        {"kind": "fail_mid_stream", "after_deltas": 2, "code": "server_error", "message": "sorry"},
        {"kind": "cut_mid_stream", "after_deltas": 2},
    ]
    # A gateway of its own: the trouble outlives the test.
    with harness.running(accounts=1) as (fake, gateway):
        for failure in failures:
            fake.script("account-1", [failure])
            answer = call(gateway).do("ask", stream=True)
            assert "error" in answer, (failure, answer)
        assert [row["legs"] for row in gateway.wait_for_log(2)] == [1, 1]


@each_client
@pytest.mark.feature("cancellation")
def test_a_client_that_stops_reading_ends_the_exchange(pool, call):
    for account in ("account-1", "account-2"):
        pool.fake.script(account, [{"kind": "answer", "text_tokens": 10000, "tokens_per_second": 50}])
    assert "error" not in call(pool.gateway).do("cancel", stream=True)
    assert [row["status"] for row in pool.recorded(1)] == ["cancelled"]
