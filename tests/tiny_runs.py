"""What the tests of runs share: a protocol that trains in a fraction of a second, and looks at what a run left behind."""

import io
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd

from richlearn import cli
from richlearn.bench._yaml import load as load_yaml
from richlearn.bench.protocol import Protocol, override, parse
from richlearn.report import Results, run

TINY = """
name: tiny
task: {name: teacher_student, parameters: {dimension: 4, teacher_width: 2, train_size: 15, test_size: 20}}
network: {name: two_layer, parameters: {width: 4}}
schemes:
  - {name: unbalanced, grid: {tau: [0.5, 1.0], delta: [-1.0, 1.0]}}
  - {name: standard}
seeds: 0-1
training: {steps: 30, stack: 3, compile: false}
optimizer: {lr: 0.05}
measure: {probe: 8, points_per_decade: 2, check_every: 10}
figures: []
"""
SEARCHED = "search={seeds: [100, 101], values: 3, max_extensions: 1, objective: test_loss}"
CSV_TIMES = ["wall_seconds", "date"]
SCHEME = '''
from __future__ import annotations

from dataclasses import dataclass

import torch

from richlearn.schemes import Multipliers, Scheme


@dataclass(frozen=True)
class Mine(Scheme):
    """Normal weights."""

    scale: float = 0.5

    def apply(self, network, generator, *, batch=None, optimizer=None):
        with torch.no_grad():
            for p in network.parameters():
                p.copy_(self.scale * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p))
        return Multipliers()
'''
# Raises for one seed of three, told apart by the generator that the seed gives.
FRAGILE = SCHEME.replace(
    "        with", "        if generator.initial_seed() == BAD:\n            raise RuntimeError('the seed of misfortune')\n        with"
)


def tiny(*options: str) -> Protocol:
    """The tiny protocol with some keys changed."""
    source = load_yaml(TINY, "tiny.yaml")
    for option in options:
        source = override(source, option)
    return parse(source)


def tiny_file(folder: Path, text: str = TINY) -> Path:
    """The tiny protocol as a file."""
    (path := folder / "tiny.yaml").write_text(text)
    return path


def go(out: Path, *options: str, **settings: Any) -> Results:
    """Run the tiny protocol in this process, TensorBoard's files apart, which take most of the time."""
    with patch.object(Results, "write_tensorboard"):
        return run(tiny(*options), out, **({"devices": "1", "quiet": True} | settings))


def contents(out: Path) -> dict[str, bytes]:
    """Every byte of the records that does not depend on time and host."""
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in (out / "records").glob("[!.]*/*.parquet")}


def timeless(out: Path) -> pd.DataFrame:
    """The leaderboard without its times."""
    return pd.read_csv(out / "leaderboard.csv", dtype=str, keep_default_na=False).drop(columns=CSV_TIMES)


def losses(out: Path) -> dict[tuple[str, str, int], float]:
    """Final test loss by scheme, parameters and seed."""
    trials = Results(out).trials
    return {(row.scheme, row.parameters, row.seed): row.test_loss for row in trials.itertuples()}


def fragile_scheme(folder: Path, seed: int) -> str:
    """A scheme of one's own that raises for `seed`."""
    from richlearn.seeds import derive

    (path := folder / "fragile.py").write_text(FRAGILE.replace("BAD", str(derive(seed, "network"))))
    return f"{path}:Mine"


def command(*arguments: str | Path) -> subprocess.CompletedProcess:
    """The `richlearn` command in a process of its own."""
    found = subprocess.run(
        [sys.executable, "-m", "richlearn.cli", *map(str, arguments)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "Traceback" not in found.stderr, found.stderr
    return found


def main_with(*arguments: str | Path) -> tuple[int, str, str]:
    """The `richlearn` command in this process: exit code, standard output, standard error."""
    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with (
            patch.object(sys, "argv", ["richlearn", *map(str, arguments)]),
            patch.object(sys, "unraisablehook", sys.unraisablehook),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return code, out.getvalue(), err.getvalue()


def forked(*arguments: str | Path, user: int | None = None) -> int:
    """The `richlearn` command in a child that shares this process's imports; its process id. It says what it said in `said.txt`."""
    if (child := os.fork()) > 0:
        return child
    code = 99
    try:
        os.setpgid(0, 0)
        said = (Path(arguments[-1]) / "said.txt").open("w")
        if user is not None:
            main_with(*arguments[:-1], f"{arguments[-1]}-of-root")  # imports what the other user may not be able to read
            os.setuid(user)
        code, out, err = main_with(*arguments)
        said.write(out + err)
        said.close()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def exit_code(child: int) -> int:
    """How a forked child ended; negative: by which signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_for(condition: Callable[[], Any], child: int, seconds: float = 100.0) -> None:
    """Until `condition()` holds, or the child has ended."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the child ended before its time"
        time.sleep(0.01)
