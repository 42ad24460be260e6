"""The official OpenAI Python SDK against /v1/chat/completions, as its documentation shows it."""

import json

import openai
import pytest
from pydantic import BaseModel

import harness
from conftest import Pool
from sdk import MODEL, sdk

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def user(text: str) -> list:
    return [{"role": "user", "content": text}]


def check_usage_of(usage, pool):
    reported = pool.fake.totals()
    assert usage.prompt_tokens == reported.input
    assert usage.prompt_tokens_details.cached_tokens == reported.cached
    assert usage.completion_tokens == reported.output
    assert usage.completion_tokens_details.reasoning_tokens == reported.reasoning
    assert usage.total_tokens == reported.input + reported.output


def test_a_plain_answer_is_whole(pool):
    completion = sdk(pool).chat.completions.create(model=MODEL, messages=user("Name three rivers."))
    assert completion.object == "chat.completion" and completion.id.startswith("chatcmpl-")
    assert completion.choices[0].message.content == "You said: Name three rivers."
    assert completion.choices[0].finish_reason == "stop"
    check_usage_of(completion.usage, pool)
    pool.check_usage(exchanges=1)


def test_a_stream_tells_its_chunks_in_order(pool):
    stream = sdk(pool).chat.completions.create(
        model=MODEL, messages=user("Count to three."), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    told = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in told) == "You said: Count to three."
    assert [choice.finish_reason for choice in told if choice.finish_reason] == ["stop"]
    assert chunks[-1].choices == []
    check_usage_of(chunks[-1].usage, pool)
    pool.check_usage(exchanges=1)


def test_a_stream_that_is_not_asked_for_usage_tells_none(pool):
    chunks = list(sdk(pool).chat.completions.create(model=MODEL, messages=user("Hello."), stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    pool.check_usage(exchanges=1)


def test_roles_and_echoed_messages_are_understood(pool):
    client = sdk(pool)
    first = client.chat.completions.create(model=MODEL, messages=user("Hello."))
    # Everything the SDK knows of the message goes back, its null members included.
    conversation = [
        {"role": "system", "content": "Be brief."},
        *user("Hello."),
        first.choices[0].message.model_dump(),
        *user("I am a test."),
    ]
    second = client.chat.completions.create(model=MODEL, messages=conversation)
    assert second.choices[0].message.content == "You said: I am a test."
    pool.check_usage(exchanges=2)


def accumulated(client, **request):
    """The message and finish reason by the SDK's own way of adding up chunks."""
    with client.chat.completions.stream(**request) as stream:
        for _ in stream:
            pass
        choice = stream.get_final_completion().choices[0]
    return choice.message, choice.finish_reason


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_parallel_calls_come_back_with_their_results_and_their_reasoning(pool, stream):
    client = sdk(pool)
    request = {"model": MODEL, "tools": [WEATHER], "reasoning_effort": "low"}
    conversation = user('calls: get_weather {"city":"Oslo"}; get_weather {"city":"Rome"}')
    if stream:
        message, finish_reason = accumulated(client, messages=conversation, **request)
    else:
        choice = client.chat.completions.create(messages=conversation, **request).choices[0]
        message, finish_reason = choice.message, choice.finish_reason
    assert finish_reason == "tool_calls"
    cities = [json.loads(call.function.arguments)["city"] for call in message.tool_calls]
    assert cities == ["Oslo", "Rome"]
    assert len({call.id for call in message.tool_calls}) == 2
    assert message.reasoning_content

    conversation.append(message.model_dump(exclude={"parsed"}))
    for call, weather in zip(message.tool_calls, ["rain, 7 degrees", "sun, 25 degrees"]):
        conversation.append({"role": "tool", "tool_call_id": call.id, "content": weather})
    second = client.chat.completions.create(messages=conversation, **request)
    assert "rain, 7 degrees; sun, 25 degrees" in second.choices[0].message.content

    sent = json.loads(pool.fake.model_requests()[-1]["body"])["input"]
    reasoning = [item for item in sent if item["type"] == "reasoning"]
    sealed = [detail["data"] for detail in message.reasoning_details if detail["type"] == "reasoning.encrypted"]
    assert [item["encrypted_content"] for item in reasoning] == sealed and len(sealed) == 1
    pool.check_usage(exchanges=2)


class Place(BaseModel):
    city: str
    country: str
    rivers: list[str]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_structured_output_is_parsed(pool, stream):
    client = sdk(pool)
    request = {"model": MODEL, "messages": user("A place."), "response_format": Place}
    if stream:
        message, _ = accumulated(client, **request)
    else:
        message = client.chat.completions.parse(**request).choices[0].message
    assert isinstance(message.parsed, Place) and message.parsed.rivers
    sent = json.loads(pool.fake.model_requests()[-1]["body"])
    assert sent["text"]["format"]["strict"] is True and sent["text"]["format"]["name"] == "Place"
    pool.check_usage(exchanges=1)


def test_an_image_and_a_file_are_taken_along(pool):
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw=="}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
    ]
    completion = sdk(pool).chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
    assert completion.choices[0].message.content == "You said: What is it?"
    sent = json.loads(pool.fake.model_requests()[-1]["body"])["input"][0]["content"]
    assert [part["type"] for part in sent] == ["input_text", "input_image", "input_file"]
    pool.check_usage(exchanges=1)


def test_parameters_that_upstream_refuses_are_left_out_and_named(pool):
    raw = sdk(pool).chat.completions.with_raw_response.create(
        model=MODEL, messages=user("Warm?"), temperature=0.3, seed=7, max_completion_tokens=4000, metadata={"a": "b"}
    )
    assert raw.parse().choices[0].message.content == "You said: Warm?"
    ignored = set(raw.headers["x-codex-lb-ignored-params"].split(","))
    assert ignored == {"temperature", "seed", "max_completion_tokens", "metadata"}
    pool.check_usage(exchanges=1)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"n": 2}, "n"),
        ({"messages": []}, "messages"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"messages": [{"role": "tool", "tool_call_id": "call_x", "content": "y"}]}, "messages[0].tool_call_id"),
    ],
    ids=["two choices", "no messages", "audio", "an answer to no call"],
)
def test_a_bad_request_names_the_place_and_asks_nobody(pool, more, param):
    with pytest.raises(openai.BadRequestError) as caught:
        sdk(pool).chat.completions.create(**{"model": MODEL, "messages": user("Hello."), **more})
    assert caught.value.type == "invalid_request_error"
    assert caught.value.param == param
    assert pool.fake.model_requests() == []


def test_what_accounts_do_not_offer_says_so(pool):
    with pytest.raises(openai.NotFoundError, match="embedding models"):
        sdk(pool).embeddings.create(model="text-embedding-3-small", input="x")
    with pytest.raises(openai.NotFoundError, match="/v1/chat/completions"):
        sdk(pool).completions.create(model=MODEL, prompt="x")
    assert pool.fake.model_requests() == []


def test_a_wrong_key_is_an_authentication_error(locked_pool):
    with pytest.raises(openai.AuthenticationError) as caught:
        sdk(locked_pool, "sk-clb-" + "x" * 43).chat.completions.create(model=MODEL, messages=user("Hello."))
    assert caught.value.code == "invalid_api_key"
    assert locked_pool.fake.model_requests() == []


def ask_until_all_are_scripted(fake, gateway, script, failure):
    """Both accounts of an own gateway play the script; what the SDK raises is returned."""
    for account in ("account-1", "account-2"):
        fake.script(account, [script] * 4)
    with pytest.raises(failure) as caught:
        answer = sdk(Pool(fake, gateway)).chat.completions.create(model=MODEL, messages=user("Hello."), stream=True)
        list(answer)
    return caught.value


def test_a_limited_pool_is_a_rate_limit_with_the_time_to_come_back():
    with harness.running(accounts=2) as (fake, gateway):
        script = {"kind": "usage_limit", "resets_in_seconds": 600}
        error = ask_until_all_are_scripted(fake, gateway, script, openai.RateLimitError)
        assert error.type == "usage_limit_reached"
        assert 1 <= int(error.response.headers["retry-after"]) <= 600


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ({"kind": "fail_mid_stream", "after_deltas": 2, "code": "server_error", "message": "sorry"}, "server_error"),
        ({"kind": "cut_mid_stream", "after_deltas": 2}, "stream_incomplete"),
    ],
    ids=["told", "cut"],
)
def test_a_failure_in_the_middle_of_a_stream_is_raised(script, code):
    with harness.running(accounts=2) as (fake, gateway):
        error = ask_until_all_are_scripted(fake, gateway, script, openai.APIError)
        assert error.code == code


def test_a_client_that_stops_reading_ends_the_exchange():
    with harness.running(accounts=1) as (fake, gateway):
        pool = Pool(fake, gateway)
        fake.script("account-1", [{"kind": "answer", "text_tokens": 10000, "tokens_per_second": 50}])
        with sdk(pool).chat.completions.create(model=MODEL, messages=user("Go on."), stream=True) as stream:
            next(iter(stream))
        assert [row["status"] for row in pool.recorded(1)] == ["cancelled"]
