"""The client libraries that run in processes of their own, and how tests talk to them.

A driver answers jobs line by line and reports what its library returned or raised. It never judges.
"""

import json
import queue
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import harness
from pins import pinned

HERE = Path(__file__).parent
JOB_SECONDS_MAX = 90
NODE_MAJOR_MIN = 22


@dataclass(frozen=True)
class Client:
    """A library, its package and lock file, which of the two APIs it has, and over which it reads Retry-After."""

    title: str
    package: str
    script: str
    program: str
    lock: Path
    apis: tuple
    waits: tuple = ("chat", "responses")

    @property
    def version(self) -> str:
        return pinned(self.package, self.lock)


def node_program() -> str:
    """The pinned Node.js where it has a package; the SDKs refuse to work with the older one of a distribution."""
    for path in sorted((HERE / "node_modules").glob("node-*/bin/node")):
        return str(path)
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True, timeout=30).stdout
    assert int(version.lstrip("v").split(".")[0]) >= NODE_MAJOR_MIN, f"these SDKs need Node.js {NODE_MAJOR_MIN}"
    return "node"


BOTH = ("chat", "responses")
NODE_LOCK = HERE / "package-lock.json"
PYTHON_LOCK = HERE.parent / "python" / "requirements.txt"


def venv(name: str) -> dict:
    return {"program": str(HERE / name / ".venv" / "bin" / "python"), "lock": HERE / name / "requirements.txt"}


AI_SDK = {"program": "node", "lock": NODE_LOCK, "script": "ai_sdk.mjs"}
CLIENTS = [
    Client("OpenAI Python SDK", "openai", "openai_python.py", sys.executable, PYTHON_LOCK, BOTH),
    Client("OpenAI Node SDK", "openai", "openai_node.mjs", "node", NODE_LOCK, BOTH),
    Client("AI SDK, OpenAI provider", "@ai-sdk/openai", apis=BOTH, **AI_SDK),
    Client("AI SDK, OpenAI-compatible provider", "@ai-sdk/openai-compatible", apis=("chat",), **AI_SDK),
    Client("LangChain", "langchain-openai", "langchain_client.py", apis=BOTH, **venv("langchain")),
    Client("LiteLLM", "litellm", "litellm_client.py", apis=BOTH, waits=("chat",), **venv("litellm")),
]


class Driver:
    """A running driver. Jobs are done one after the other."""

    def __init__(self, client: Client, directory: Path):
        program = node_program() if client.program == "node" else client.program
        assert shutil.which(program), "run `make setup`"
        self.log = directory / "driver.log"
        with self.log.open("wb") as errors:
            self.process = subprocess.Popen(
                [program, f"drivers/{client.script}", client.package],
                cwd=HERE, env=harness.clean_environment(directory), text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            )
        self.lines = queue.Queue()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        try:
            self.version = self._answer()["version"]
        except BaseException:
            self.stop()
            raise

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def _answer(self) -> dict:
        try:
            line = self.lines.get(timeout=JOB_SECONDS_MAX)
        except queue.Empty:
            line = ""
        assert line, f"the driver gave no answer:\n{self.log.read_text(errors='replace')[-4000:]}"
        return json.loads(line)

    def do(self, job: dict) -> dict:
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdin.close()
        self.process.stdout.close()
