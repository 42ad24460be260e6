"""Runs a coding agent as its user does, with a home of its own and nothing of the developer's."""

import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import harness


@dataclass
class Turn:
    """How an agent ended, and what it said."""

    status: int
    output: str
    errors: str
    project: Path


def run(arguments: list, directory: Path, seconds_max: float, interrupt_when=None, **env: str) -> Turn:
    """One run in a project; it is interrupted as by Ctrl-C once `interrupt_when` says so."""
    project = directory / "project"
    project.mkdir(exist_ok=True)
    process = subprocess.Popen(
        arguments, cwd=project, env=harness.clean_environment(directory, **env), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    try:
        if interrupt_when:
            harness.wait_until("the moment to interrupt", seconds_max, interrupt_when)
            process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=seconds_max)
    finally:
        process.kill()
        process.communicate()
    return Turn(process.returncode, output, errors, project)
