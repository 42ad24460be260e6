"""The set-up blocks of README.md, used as printed: only the address and the key are replaced."""

import re

import harness

ADDRESS, KEY = "127.0.0.1:2455", "unused"


def block(name: str, gateway: harness.Gateway, api_key: str | None = None) -> str:
    """The block behind `<!-- client: name -->`, for this gateway."""
    found = re.findall(rf"<!-- client: {re.escape(name)} -->\n```\w+\n(.*?)```\n", README, re.DOTALL)
    assert len(found) == 1, f"README.md has {len(found)} blocks for {name}"
    text = found[0].replace(ADDRESS, f"127.0.0.1:{gateway.proxy_port}")
    return text.replace(KEY, api_key) if api_key else text


README = (harness.ROOT / "README.md").read_text()
