"""The official OpenAI Python SDK against /v1/responses, as its documentation shows it."""

import httpx
import openai
import pytest

import harness
from conftest import Pool
from sdk import MODEL, sdk

WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def check_usage_of(response, pool):
    reported = pool.fake.totals()
    assert response.usage.input_tokens == reported.input
    assert response.usage.input_tokens_details.cached_tokens == reported.cached
    assert response.usage.output_tokens == reported.output
    assert response.usage.output_tokens_details.reasoning_tokens == reported.reasoning
    assert response.usage.total_tokens == reported.input + reported.output


def test_a_plain_answer_is_whole(pool):
    response = sdk(pool).responses.create(model=MODEL, input="Name three rivers.")
    assert response.status == "completed"
    assert response.output_text == "You said: Name three rivers."
    check_usage_of(response, pool)
    pool.check_usage(exchanges=1)


def test_a_list_of_messages_is_answered(pool):
    conversation = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Hello."},
        {"role": "assistant", "content": "Hello, who are you?"},
        {"role": "user", "content": [{"type": "input_text", "text": "I am a test."}]},
    ]
    response = sdk(pool).responses.create(model=MODEL, input=conversation, instructions="Answer in English.")
    assert response.output_text == "You said: I am a test."
    pool.check_usage(exchanges=1)


def test_a_stream_tells_its_events_in_order_and_ends_whole(pool):
    events = list(sdk(pool).responses.create(model=MODEL, input="Count to three.", stream=True))
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed", kinds
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers)), "sequence numbers do not strictly increase"
    deltas = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    final = events[-1].response
    assert deltas == final.output_text == "You said: Count to three."
    check_usage_of(final, pool)
    pool.check_usage(exchanges=1)


def test_the_stream_helper_collects_the_final_response(pool):
    with sdk(pool).responses.stream(model=MODEL, input="Collect me.") as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == "You said: Collect me."
    pool.check_usage(exchanges=1)


def test_parameters_that_upstream_refuses_are_left_out_and_named(pool):
    raw = sdk(pool).responses.with_raw_response.create(
        model=MODEL, input="Warm?", temperature=0.3, top_p=0.9, max_output_tokens=4000, metadata={"a": "b"}
    )
    assert raw.parse().output_text == "You said: Warm?"
    ignored = set(raw.headers["x-codex-lb-ignored-params"].replace(" ", "").split(","))
    assert ignored == {"temperature", "top_p", "max_output_tokens", "metadata"}
    assert raw.headers["x-request-id"]
    pool.check_usage(exchanges=1)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_function_call_comes_back_with_its_result(pool, stream):
    client = sdk(pool)

    def ask(conversation):
        if not stream:
            return client.responses.create(model=MODEL, input=conversation, tools=[WEATHER])
        events = client.responses.create(model=MODEL, input=conversation, tools=[WEATHER], stream=True)
        return list(events)[-1].response

    conversation = [{"role": "user", "content": 'call: get_weather {"city":"Oslo"}'}]
    first = ask(conversation)
    calls = [item for item in first.output if item.type == "function_call"]
    assert [(item.name, item.arguments) for item in calls] == [("get_weather", '{"city":"Oslo"}')]

    conversation += first.output
    conversation.append({"type": "function_call_output", "call_id": calls[0].call_id, "output": "rain, 7 degrees"})
    second = ask(conversation)
    assert "rain, 7 degrees" in second.output_text
    pool.check_usage(exchanges=2)


FAILURES = {
    "usage limit": {"kind": "usage_limit", "resets_in_seconds": 600},
    "unavailable": {"kind": "server_error", "status": 503},
    "limited in the first event": {"kind": "first_event_failure", "code": "rate_limit_exceeded", "message": "busy"},
    "cut before the head": {"kind": "cut_before_head"},
}
REQUESTS_MAX = 40


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_an_account_in_trouble_is_not_seen(failure, stream):
    # An own gateway: the trouble outlives the test.
    with harness.running(accounts=2) as (fake, gateway):
        pool = Pool(fake, gateway)
        fake.script("account-1", [failure])
        for number in range(REQUESTS_MAX):
            answer = sdk(pool).responses.create(model=MODEL, input=f"Are you there, {number}?", stream=stream)
            answer = list(answer)[-1].response if stream else answer
            assert answer.output_text == f"You said: Are you there, {number}?"
            accounts = [request["account"] for request in fake.model_requests()]
            if "account-1" in accounts:
                break
        assert accounts[-2:] == ["account-1", "account-2"], "the request did not move on"
        pool.check_usage(exchanges=number + 1)
        assert pool.recorded(number + 1)[-1]["legs"] == 2


def test_a_wrong_key_is_an_authentication_error(locked_pool):
    for wrong in ("anything", "sk-clb-" + "x" * 43):
        with pytest.raises(openai.AuthenticationError) as caught:
            sdk(locked_pool, wrong).responses.create(model=MODEL, input="Hello.")
        assert caught.value.code == "invalid_api_key"
    assert locked_pool.fake.model_requests() == []


def test_the_right_key_is_let_in_and_stays_here(locked_pool):
    response = sdk(locked_pool, locked_pool.api_key).responses.create(model=MODEL, input="Hello.")
    assert response.output_text == "You said: Hello."
    locked_pool.check_usage(exchanges=1)
    locked_pool.check_upstream_saw_accounts_only(locked_pool.api_key)
    assert locked_pool.recorded(1)[0]["api_key_id"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "Hello."}, "model"),
        ({"model": 5, "input": "Hello."}, "model"),
        ({"model": MODEL, "input": 5}, "input"),
        ({"model": MODEL, "input": "Hello.", "stream": "yes"}, "stream"),
    ],
    ids=["no model", "model is no text", "input is a number", "stream is no boolean"],
)
def test_a_bad_request_names_the_place_and_asks_nobody(pool, body, param):
    with pytest.raises(openai.BadRequestError) as caught:
        sdk(pool).post("/responses", body=body, cast_to=object)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.param == param
    assert pool.fake.model_requests() == []


def test_a_body_that_is_no_json_is_a_bad_request(pool):
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{pool.gateway.url}/v1/responses", content=b"{", trust_env=False, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert pool.fake.model_requests() == []
