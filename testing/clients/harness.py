"""Starts the fake ChatGPT and the gateway as real processes, for tests with real clients and for the demo.

Uses the standard library only. Every wait is bounded, and a process that dies tells what it last said.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 15
# The request log is written behind the answer.
SETTLE_SECONDS_MAX = 10


class HarnessError(Exception):
    """A process did not do what the tests rely on."""


def program(name: str) -> str:
    path = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / name
    if not path.exists():
        raise HarnessError(f"{path} is missing: run `cargo build --package codex-lb --package fake-chatgpt`")
    return str(path)


@contextlib.contextmanager
def scratch_directory():
    """A directory inside the checkout: Codex distrusts one below the system's temporary directory."""
    parent = ROOT / "testing" / ".work"
    parent.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def clean_environment(home: Path, **extra: str) -> dict:
    """Nothing of the developer's own settings, keys or proxies."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "HOME": str(home), "NO_PROXY": "127.0.0.1,localhost", **extra}


def wait_until(what: str, seconds_max: float, probe):
    """Asks every 50 ms until the answer is true, and returns it."""
    deadline = time.monotonic() + seconds_max
    while True:
        answer = probe()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise HarnessError(f"waited {seconds_max} s in vain for {what}")
        time.sleep(0.05)


def call(method: str, url: str, body=None, headers: dict | None = None):
    """A JSON call that never goes through a proxy. Returns status and decoded body."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json", **(headers or {})}
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as response:
            status, text = response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            status, text = error.code, error.read()
    try:
        return status, json.loads(text or b"null")
    except json.JSONDecodeError:
        return status, text.decode(errors="replace")


class Process:
    """A running program whose output goes to a file."""

    def __init__(self, arguments: list, env: dict, cwd: Path, log: Path, stdout=None):
        self.name = Path(arguments[0]).name
        self.log = log
        with log.open("ab") as output:
            self.popen = subprocess.Popen(
                arguments, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout or output, stderr=output
            )

    def check_alive(self):
        status = self.popen.poll()
        if status is not None:
            raise HarnessError(f"{self.name} ended with status {status}:\n{self.tail()}")

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def stop(self):
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
            try:
                self.popen.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()


@dataclass(frozen=True)
class Totals:
    """Tokens of answers, as the fake reports them and as the gateway records them."""

    input: int
    cached: int
    output: int
    reasoning: int


class Fake:
    """The fake ChatGPT with its accounts' auth.json files."""

    def __init__(self, directory: Path, accounts: int = 1, listen: str = "127.0.0.1:0"):
        self.auth_directory = directory / "auth"
        arguments = [program("fake-chatgpt"), "--listen", listen, "--accounts", str(accounts)]
        arguments += ["--write-auth", str(self.auth_directory)]
        log = directory / "fake-chatgpt.log"
        self.process = Process(arguments, clean_environment(directory), directory, log, stdout=subprocess.PIPE)
        # One line says where it is, or its end says that it died.
        line = self.process.popen.stdout.readline()
        if not line:
            self.process.popen.wait()
            self.process.check_alive()
        place = json.loads(line)
        self.base_url, self.issuer = place["base_url"], place["issuer"]

    def auth_files(self) -> list:
        return sorted(self.auth_directory.glob("*.json"))

    def requests(self) -> list:
        return self._control("GET", "requests")["requests"]

    def model_requests(self) -> list:
        return [request for request in self.requests() if request["head"]["path"].endswith("/codex/responses")]

    def totals(self) -> Totals:
        """The sums over all accounts."""
        accounts = self._control("GET", "totals")["totals"].values()
        names = ("input", "cached", "output", "reasoning")
        return Totals(*(sum(account[name] for account in accounts) for name in names))

    def script(self, account: str, scripts: list):
        self._control("POST", "script", {"account": account, "scripts": scripts})

    def clear(self):
        self._control("POST", "clear")

    def _control(self, method: str, path: str, body=None):
        status, answer = call(method, f"{self.issuer}/__fake/{path}", body)
        if status != 200:
            raise HarnessError(f"{method} /__fake/{path} answered {status}: {answer}")
        return answer

    def stop(self):
        self.process.stop()
        self.process.popen.stdout.close()


class Gateway:
    """codex-lb with a data directory of its own. Prepare it with the command line, then start it."""

    def __init__(self, directory: Path, fake: Fake, proxy_port: int = 0, admin_port: int = 0, metrics_port: int = 0):
        self.directory = directory
        self.data_dir = directory / "data"
        self.proxy_port = proxy_port or free_port()
        self.admin_port = admin_port or free_port()
        self.process = None
        self.env = clean_environment(
            directory,
            CODEX_LB_DATA_DIR=str(self.data_dir),
            CODEX_LB_UPSTREAM__BASE_URL=fake.base_url,
            CODEX_LB_OAUTH__ISSUER=fake.issuer,
            CODEX_LB_PROXY__LISTEN=f"127.0.0.1:{self.proxy_port}",
            CODEX_LB_ADMIN__LISTEN=f"127.0.0.1:{self.admin_port}",
            CODEX_LB_METRICS__LISTEN=f"127.0.0.1:{metrics_port or free_port()}",
            CODEX_LB_SHUTDOWN__GRACE="0s",
            CODEX_LB_SHUTDOWN__DRAIN_TIMEOUT="5s",
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.proxy_port}"

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    def run(self, *arguments: str) -> str:
        """Runs a command of the gateway's and returns what it printed."""
        result = subprocess.run(
            [program("codex-lb"), *arguments],
            env=self.env, cwd=self.directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        )
        if result.returncode != 0:
            command = f"codex-lb {' '.join(arguments)}"
            raise HarnessError(f"{command} ended with {result.returncode}:\n{result.stderr[-4000:]}")
        return result.stdout

    def import_accounts(self, files: list):
        self.run("accounts", "import", *map(str, files))

    def create_api_key(self, name: str) -> str:
        """The secret is the only thing printed that looks like one."""
        words = self.run("keys", "create", "--name", name).split()
        return next(word for word in words if word.startswith("sk-clb-"))

    def require_api_keys(self):
        """Turns key auth on. Only before the start: a running gateway is not told of writes past it."""
        if self.process:
            raise HarnessError("require_api_keys after the start")
        with contextlib.closing(sqlite3.connect(self.data_dir / "gateway.db")) as database, database:
            database.execute(
                "insert into settings (name, value, version, updated_at) values ('access', ?, 1, 0)",
                [json.dumps({"apiKeyAuth": True})],
            )

    def start(self):
        arguments = [program("codex-lb"), "serve"]
        self.process = Process(arguments, self.env, self.directory, self.directory / "codex-lb.log")

        def is_ready():
            self.process.check_alive()
            try:
                return call("GET", f"{self.url}/health/ready")[0] == 200
            except OSError:
                return False

        wait_until("the gateway to be ready", START_SECONDS_MAX, is_ready)

    def stop(self):
        if self.process:
            self.process.stop()

    def logged(self) -> list:
        """The request log, oldest first."""
        path = (self.data_dir / "gateway.db").as_uri() + "?mode=ro"
        with contextlib.closing(sqlite3.connect(path, uri=True)) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute("select * from request_log order by requested_at, id")]

    def wait_for_log(self, rows: int) -> list:
        """The request log once it has this many rows; what is written later is somebody else's mistake to find."""
        enough = lambda: len(self.logged()) >= rows
        try:
            wait_until(f"{rows} rows in the request log", SETTLE_SECONDS_MAX, enough)
        except HarnessError as error:
            raise HarnessError(f"{error}; it has {len(self.logged())}") from None
        return self.logged()


@contextlib.contextmanager
def running(accounts: int = 1, prepare=None):
    """A fake and a gateway that pools its accounts; `prepare` may work on the gateway before it starts."""
    with scratch_directory() as directory, contextlib.ExitStack() as stack:
        fake = Fake(directory, accounts)
        stack.callback(fake.stop)
        gateway = Gateway(directory, fake)
        gateway.import_accounts(fake.auth_files())
        gateway.prepared = prepare(gateway) if prepare else None
        stack.callback(gateway.stop)
        try:
            gateway.start()
            yield fake, gateway
        except BaseException:
            if gateway.process:
                print(f"--- codex-lb said:\n{gateway.process.tail()}")
            print(f"--- fake-chatgpt said:\n{fake.process.tail()}")
            raise
