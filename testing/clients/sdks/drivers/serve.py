"""Answers jobs for a driver: one line of JSON in, one line of JSON out, in order. Drivers only report; tests judge."""

import json
import sys
from importlib.metadata import version

MODEL = "gpt-5.5"
IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5Erk"
    "Jggg=="
)
CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
PLACE = {
    "title": "place",
    "description": "A place.",
    "type": "object",
    "properties": {"city": {"type": "string"}, "rivers": {"type": "array", "items": {"type": "string"}}},
    "required": ["city", "rivers"],
    "additionalProperties": False,
}
WEATHER = {"name": "get_weather", "description": "The weather of a city.", "parameters": CITY}


def serve(package: str, work):
    # Libraries print to standard output when they feel like it.
    answers, sys.stdout = sys.stdout, sys.stderr

    def say(result):
        answers.write(json.dumps(result) + "\n")
        answers.flush()

    say({"version": version(package)})
    for line in sys.stdin:
        try:
            say(work(json.loads(line)))
        except Exception as error:
            say({"error": described(error)})


def described(error) -> dict:
    body = getattr(error, "body", None)
    code = getattr(error, "code", None) or (body.get("code") if isinstance(body, dict) else None)
    name, status = type(error).__name__, getattr(error, "status_code", None)
    return {"name": name, "status": status, "code": code, "message": str(error)}


def usage_of_response(usage) -> dict:
    return {
        "input": usage.input_tokens,
        "cached": usage.input_tokens_details.cached_tokens,
        "output": usage.output_tokens,
        "reasoning": usage.output_tokens_details.reasoning_tokens,
    }


def usage_of_completion(usage) -> dict:
    return {
        "input": usage.prompt_tokens,
        "cached": usage.prompt_tokens_details.cached_tokens,
        "output": usage.completion_tokens,
        "reasoning": usage.completion_tokens_details.reasoning_tokens,
    }
