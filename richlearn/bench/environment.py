"""Where, when and by which code a batch was computed: what may differ between equal runs."""

import datetime
import platform
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any


@cache
def commit() -> str:
    """The git commit of the checkout that richlearn runs from, with "+" for local changes; empty for an installed package."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=12", "HEAD") + ("+" if git("status", "--porcelain", "--", "richlearn") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def command() -> str:
    """The command line of this process, as a shell would take it."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def describe(device: str, seconds: float, members: int, command_line: str) -> dict[str, Any]:
    """The environment of one batch: versions, machine, date, and its wall-clock seconds."""
    return {
        "richlearn": version("richlearn"),
        "torch": version("torch"),
        "lightning": version("lightning"),
        "python": platform.python_version(),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "host": platform.node(),
        "device": device,
        "command": command_line,
        "wall_seconds": round(seconds, 3),
        "members": members,
    }
