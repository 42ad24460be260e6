"""Which version of a package a lock file pins."""

import json
from pathlib import Path


def pinned(package: str, lock: Path) -> str:
    """The version in a package-lock.json or a requirements.txt."""
    if lock.name == "package-lock.json":
        return json.loads(lock.read_text())["packages"][f"node_modules/{package}"]["version"]
    return dict(line.split("==") for line in lock.read_text().splitlines() if "==" in line)[package]
