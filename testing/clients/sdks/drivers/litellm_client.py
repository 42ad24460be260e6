"""LiteLLM as a client, both APIs, with the provider prefix `openai/` for an OpenAI-compatible endpoint."""

import json
import os

# Before the import: it would fetch a price list.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm  # noqa: E402
from serve import IMAGE, MODEL, PLACE, WEATHER, serve, usage_of_completion, usage_of_response  # noqa: E402

litellm.telemetry = False


def work(job: dict) -> dict:
    where = {"model": f"openai/{MODEL}", "api_base": f"{job['url']}/v1", "api_key": job["api_key"]}
    call = RESPONSES if job["api"] == "responses" else CHAT
    # These are the OpenAI SDK's, which LiteLLM uses for chat. Its own do not read Retry-After.
    return call[job["do"]](job, {**where, "max_retries": job["retries"]})


def complete(job, where, **request):
    if not job["stream"]:
        return litellm.completion(**where, **request)
    stream = litellm.completion(**where, stream=True, stream_options={"include_usage": True}, **request)
    return litellm.stream_chunk_builder(list(stream), messages=request["messages"])


def chat_ask(job, where):
    completion = complete(job, where, messages=user(job["prompt"]))
    return {"text": completion.choices[0].message.content, "usage": usage_of_completion(completion.usage)}


def chat_image(job, where):
    content = [{"type": "text", "text": job["prompt"]}, {"type": "image_url", "image_url": {"url": IMAGE}}]
    return {"text": complete(job, where, messages=user(content)).choices[0].message.content}


def chat_structured(job, where):
    wanted = {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": PLACE}}
    completion = complete(job, where, messages=user(job["prompt"]), response_format=wanted)
    return {"parsed": json.loads(completion.choices[0].message.content)}


def chat_tools(job, where):
    tools = [{"type": "function", "function": {**WEATHER, "strict": True}}]
    conversation = user(job["prompt"])
    message = complete(job, where, messages=conversation, tools=tools).choices[0].message
    conversation.append(message.model_dump())
    for call, output in zip(message.tool_calls, job["outputs"]):
        conversation.append({"role": "tool", "tool_call_id": call.id, "content": output})
    functions = [call.function for call in message.tool_calls]
    return {
        "calls": [{"name": each.name, "arguments": json.loads(each.arguments)} for each in functions],
        "text": complete(job, where, messages=conversation, tools=tools).choices[0].message.content,
    }


def chat_cancel(job, where):
    stream = litellm.completion(**where, stream=True, messages=user(job["prompt"]))
    next(chunk for chunk in stream if chunk.choices[0].delta.content)
    stream.completion_stream.close()
    return {"text": ""}


def respond(job, where, **request):
    if not job["stream"]:
        return litellm.responses(**where, **request)
    events = litellm.responses(**where, stream=True, **request)
    return list(events)[-1].response


def text_of(response) -> str:
    messages = [item for item in response.output if item.type == "message"]
    return "".join(part.text for message in messages for part in message.content)


def responses_ask(job, where):
    response = respond(job, where, input=job["prompt"])
    return {"text": text_of(response), "usage": usage_of_response(response.usage)}


def responses_image(job, where):
    content = [{"type": "input_text", "text": job["prompt"]}, {"type": "input_image", "image_url": IMAGE}]
    return {"text": text_of(respond(job, where, input=[{"role": "user", "content": content}]))}


def responses_structured(job, where):
    text = {"format": {"type": "json_schema", "name": "place", "strict": True, "schema": PLACE}}
    return {"parsed": json.loads(text_of(respond(job, where, input=job["prompt"], text=text)))}


def responses_tools(job, where):
    tools = [{"type": "function", "strict": True, **WEATHER}]
    conversation = [{"role": "user", "content": job["prompt"]}]
    first = respond(job, where, input=conversation, tools=tools)
    calls = [item for item in first.output if item.type == "function_call"]
    conversation += [item.model_dump(exclude_none=True) for item in first.output]
    for call, output in zip(calls, job["outputs"]):
        conversation.append({"type": "function_call_output", "call_id": call.call_id, "output": output})
    second = respond(job, where, input=conversation, tools=tools)
    return {
        "calls": [{"name": call.name, "arguments": json.loads(call.arguments)} for call in calls],
        "text": text_of(second),
    }


def responses_cancel(job, where):
    stream = litellm.responses(**where, stream=True, input=job["prompt"])
    next(event for event in stream if event.type == "response.output_text.delta")
    stream.response.close()
    return {"text": ""}


def user(content) -> list:
    return [{"role": "user", "content": content}]


CHAT = {
    "ask": chat_ask,
    "image": chat_image,
    "structured": chat_structured,
    "tools": chat_tools,
    "cancel": chat_cancel,
}
RESPONSES = {
    "ask": responses_ask,
    "image": responses_image,
    "structured": responses_structured,
    "tools": responses_tools,
    "cancel": responses_cancel,
}
serve("litellm", work)
