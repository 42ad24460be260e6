"""The OpenAI Python SDK, pointed at a gateway."""

import httpx
from openai import OpenAI

MODEL = "gpt-5.5"


def sdk(pool, api_key: str = "anything") -> OpenAI:
    """Without retries, so that every request is one that the test made; without the developer's proxies."""
    transport = httpx.Client(trust_env=False, timeout=60)
    return OpenAI(base_url=f"{pool.gateway.url}/v1", api_key=api_key, max_retries=0, http_client=transport)
