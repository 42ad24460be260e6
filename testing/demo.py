#!/usr/bin/env python3
"""`make demo`: the gateway on its default ports, in front of a fake ChatGPT with three accounts. Ctrl-C ends it all."""

import contextlib
import itertools
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "clients"))
import harness  # noqa: E402

ACCOUNTS = 3
QUESTIONS = ["Name three rivers.", "What is a lease?", "Count to ten.", "Why is the sky blue?", "Say hello."]
PROXY_PORT, ADMIN_PORT, METRICS_PORT = 2455, 2456, 9090


def ask(gateway, question: str) -> str:
    """One question, answered whole."""
    body = {"model": "gpt-5.5", "input": question}
    status, answer = harness.call("POST", f"{gateway.url}/v1/responses", body)
    if status != 200:
        return f"{status} {answer}"
    texts = (part["text"] for item in answer["output"] for part in item.get("content") or [] if "text" in part)
    return "".join(texts)


def tell(gateway, directory: Path):
    print(f"""
The gateway is running.

  clients        {gateway.url}/v1  and  {gateway.url}/backend-api/codex
  ready?         {gateway.url}/health/ready
  management     {gateway.admin_url}
  metrics        http://127.0.0.1:{METRICS_PORT}/metrics
  logs and data  {directory.relative_to(harness.ROOT)}

Try it:

  curl -N {gateway.url}/v1/responses -H 'content-type: application/json' \\
    -d '{{"model": "gpt-5.5", "input": "Hello.", "stream": true}}'

Ctrl-C ends it.
""", flush=True)


def main():
    directory = harness.ROOT / "target" / "demo"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        fake = harness.Fake(directory, ACCOUNTS)
        stack.callback(fake.stop)
        gateway = harness.Gateway(directory, fake, PROXY_PORT, ADMIN_PORT, METRICS_PORT)
        gateway.import_accounts(fake.auth_files())
        stack.callback(gateway.stop)
        gateway.start()
        for question in QUESTIONS:
            print(f"> {question}\n  {ask(gateway, question)}", flush=True)
        served = sorted(request["account"] for request in fake.model_requests())
        for account, requests in itertools.groupby(served):
            print(f"{account} served {len(list(requests))}")
        tell(gateway, directory)
        while True:
            gateway.process.check_alive()
            fake.process.check_alive()
            time.sleep(1)


def end(*_):
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    try:
        main()
    except KeyboardInterrupt:
        print("\nstopped")
    except harness.HarnessError as error:
        sys.exit(f"demo: {error}")
