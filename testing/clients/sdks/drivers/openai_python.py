"""The official OpenAI Python SDK, both APIs."""

import json

import httpx
from openai import OpenAI
from serve import IMAGE, MODEL, PLACE, WEATHER, serve, usage_of_completion, usage_of_response


def work(job: dict) -> dict:
    with httpx.Client(trust_env=False, timeout=60) as transport:
        url = f"{job['url']}/v1"
        client = OpenAI(base_url=url, api_key=job["api_key"], max_retries=job["retries"], http_client=transport)
        api = Responses(client, job["stream"]) if job["api"] == "responses" else Chat(client, job["stream"])
        return getattr(api, job["do"])(job)


class Responses:
    def __init__(self, client, is_stream: bool):
        self.client, self.is_stream = client, is_stream

    def respond(self, **request):
        if not self.is_stream:
            return self.client.responses.create(model=MODEL, **request)
        with self.client.responses.stream(model=MODEL, **request) as stream:
            for _ in stream:
                pass
            return stream.get_final_response()

    def ask(self, job):
        response = self.respond(input=job["prompt"])
        return {"text": response.output_text, "usage": usage_of_response(response.usage)}

    def image(self, job):
        text, image = {"type": "input_text", "text": job["prompt"]}, {"type": "input_image", "image_url": IMAGE}
        return {"text": self.respond(input=[{"role": "user", "content": [text, image]}]).output_text}

    def structured(self, job):
        text = {"format": {"type": "json_schema", "name": "place", "strict": True, "schema": PLACE}}
        return {"parsed": json.loads(self.respond(input=job["prompt"], text=text).output_text)}

    def tools(self, job):
        tools = [{"type": "function", "strict": True, **WEATHER}]
        conversation = [{"role": "user", "content": job["prompt"]}]
        first = self.respond(input=conversation, tools=tools)
        calls = [item for item in first.output if item.type == "function_call"]
        conversation += first.output
        for call, output in zip(calls, job["outputs"]):
            conversation.append({"type": "function_call_output", "call_id": call.call_id, "output": output})
        second = self.respond(input=conversation, tools=tools)
        return {
            "calls": [{"name": call.name, "arguments": json.loads(call.arguments)} for call in calls],
            "text": second.output_text,
        }

    def cancel(self, job):
        with self.client.responses.create(model=MODEL, input=job["prompt"], stream=True) as stream:
            next(event for event in stream if event.type == "response.output_text.delta")
        return {"text": ""}


class Chat:
    def __init__(self, client, is_stream: bool):
        self.client, self.is_stream = client, is_stream

    def complete(self, **request):
        if not self.is_stream:
            return self.client.chat.completions.create(model=MODEL, **request)
        options = {"include_usage": True}
        with self.client.chat.completions.stream(model=MODEL, stream_options=options, **request) as stream:
            for _ in stream:
                pass
            return stream.get_final_completion()

    def ask(self, job):
        completion = self.complete(messages=user(job["prompt"]))
        return {"text": completion.choices[0].message.content, "usage": usage_of_completion(completion.usage)}

    def image(self, job):
        text, image = {"type": "text", "text": job["prompt"]}, {"type": "image_url", "image_url": {"url": IMAGE}}
        return {"text": self.complete(messages=user([text, image])).choices[0].message.content}

    def structured(self, job):
        wanted = {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": PLACE}}
        completion = self.complete(messages=user(job["prompt"]), response_format=wanted)
        return {"parsed": json.loads(completion.choices[0].message.content)}

    def tools(self, job):
        tools = [{"type": "function", "function": {**WEATHER, "strict": True}}]
        conversation = user(job["prompt"])
        message = self.complete(messages=conversation, tools=tools).choices[0].message
        conversation.append(message.model_dump(exclude={"parsed"}))
        for call, output in zip(message.tool_calls, job["outputs"]):
            conversation.append({"role": "tool", "tool_call_id": call.id, "content": output})
        functions = [call.function for call in message.tool_calls]
        return {
            "calls": [{"name": each.name, "arguments": json.loads(each.arguments)} for each in functions],
            "text": self.complete(messages=conversation, tools=tools).choices[0].message.content,
        }

    def cancel(self, job):
        with self.client.chat.completions.create(model=MODEL, messages=user(job["prompt"]), stream=True) as stream:
            next(chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content)
        return {"text": ""}


def user(content) -> list:
    return [{"role": "user", "content": content}]


serve("openai", work)
