"""LangChain's ChatOpenAI, both APIs."""

import os

# Before the import: LangChain reports to its maker's service when the environment says so.
os.environ["LANGSMITH_TRACING"] = "false"

from langchain_core.messages import HumanMessage, ToolMessage  # noqa: E402
from langchain_openai import ChatOpenAI  # noqa: E402
from serve import IMAGE, MODEL, PLACE, WEATHER, serve  # noqa: E402


def work(job: dict) -> dict:
    model = ChatOpenAI(
        model=MODEL,
        base_url=f"{job['url']}/v1",
        api_key=job["api_key"],
        max_retries=job["retries"],
        use_responses_api=job["api"] == "responses",
        stream_usage=True,
    )
    return JOBS[job["do"]](model, job)


def told(model, job, messages):
    """The message, whole or as LangChain adds its chunks up."""
    if not job["stream"]:
        return model.invoke(messages)
    message = None
    for chunk in model.stream(messages):
        message = chunk if message is None else message + chunk
    return message


def ask(model, job):
    message = told(model, job, job["prompt"])
    usage = message.usage_metadata
    return {
        "text": message.text,
        "usage": {
            "input": usage["input_tokens"],
            "cached": usage["input_token_details"]["cache_read"],
            "output": usage["output_tokens"],
            "reasoning": usage["output_token_details"]["reasoning"],
        },
    }


def image(model, job):
    content = [{"type": "text", "text": job["prompt"]}, {"type": "image_url", "image_url": {"url": IMAGE}}]
    return {"text": told(model, job, [HumanMessage(content)]).text}


def structured(model, job):
    runnable = model.with_structured_output(PLACE, method="json_schema", strict=True)
    # Its chunks are the answer as far as it has come.
    return {"parsed": list(runnable.stream(job["prompt"]))[-1] if job["stream"] else runnable.invoke(job["prompt"])}


def tools(model, job):
    model = model.bind_tools([{"type": "function", "function": {**WEATHER, "strict": True}}])
    conversation = [HumanMessage(job["prompt"])]
    first = told(model, job, conversation)
    conversation.append(first)
    for call, output in zip(first.tool_calls, job["outputs"]):
        conversation.append(ToolMessage(output, tool_call_id=call["id"]))
    calls = [{"name": call["name"], "arguments": call["args"]} for call in first.tool_calls]
    return {"calls": calls, "text": told(model, job, conversation).text}


def cancel(model, job):
    stream = model.stream(job["prompt"])
    next(chunk for chunk in stream if chunk.text)
    stream.close()
    return {"text": ""}


JOBS = {"ask": ask, "image": image, "structured": structured, "tools": tools, "cancel": cancel}
serve("langchain-openai", work)
