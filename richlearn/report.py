"""From a protocol to what a person reads: a run, and its folder's tables, leaderboard, pictures and TensorBoard."""

import io
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from richlearn.bench import leaderboard
from richlearn.bench._yaml import load as load_yaml
from richlearn.bench.content import canonical_json
from richlearn.bench.folder import RunFolder
from richlearn.bench.protocol import Protocol, find, load, parse
from richlearn.bench.records import Contents, RecordStore
from richlearn.bench.rows import SchemeRow
from richlearn.bench.runner import Runner, Settings
from richlearn.bench.trials import TrialMaker
from richlearn.errors import RichlearnError, UsageError


class RunFailed(RichlearnError):
    """Some batches raised or could not be written; all others are recorded and reported."""


@dataclass(frozen=True)
class Asked:
    """A protocol with all that its records hold: rows of added schemes and seeds beyond its own."""

    protocol: Protocol
    trials: pd.DataFrame

    def __getattr__(self, name: str) -> Any:
        return getattr(self.protocol, name)

    @cached_property
    def seeds(self) -> list[int]:
        """The protocol's seeds and every recorded one."""
        return sorted({*self.protocol.seeds, *map(int, self.trials.loc[self.trials["role"] == "score", "seed"])})

    def cells(self) -> list[SchemeRow]:
        """The protocol's rows, then those of schemes that runs added."""
        own = self.protocol.cells()
        known = {(row.name, canonical_json(row.parameters)) for row in own}
        added = sorted(set(zip(self.trials["scheme"], self.trials["parameters"], strict=True)) - known)
        return own + [SchemeRow(name, json.loads(text)) for name, text in added]


class Results:
    """What a folder's records say, read when asked for; the same from Python as from the command line.

    Args:
        folder: of a run.

    Raises:
        UsageError: nothing was run there.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = RunFolder(Path(folder))
        there = self.folder.read_protocol()
        if there is None:
            raise UsageError(f"folder `{folder}` holds no run: no protocol.yaml; `richlearn run B --out {folder}` starts one")
        self.protocol = parse(load_yaml(there[1], str(self.folder.protocol)))

    @cached_property
    def contents(self) -> Contents:
        """The records, proved; a read-only look that moves nothing."""
        return RecordStore(self.folder).read(repair=False)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """One row per trial of this protocol (columns: `richlearn.bench.tables.TRIALS`)."""
        every = self.contents.trials
        return every[every["protocol_hash"] == self.protocol.hash].reset_index(drop=True)

    @property
    def asked(self) -> Asked:
        """What was asked: the protocol, rows of added schemes, all recorded seeds."""
        return Asked(self.protocol, self.trials)

    @cached_property
    def current(self) -> pd.DataFrame:
        """Trials whose content is what the installed code would compute, one a seed; stale ones and their scores are left out.

        Where a folder holds a trial both ordinary and data-parallel, the ordinary one counts.
        """
        specs, versions = [json.loads(spec) for spec in self.trials["spec"]], _versions(self.asked)
        fresh = [versions[scheme] == spec["numerics"] for scheme, spec in zip(self.trials["scheme"], specs, strict=True)]
        parallel = [spec["training"]["strategy"] != "auto" for spec in specs]
        ordered = self.trials.assign(parallel=parallel)[fresh].sort_values(["parallel", "trial"])
        same = ["scheme", "parameters", "role", "seed", "train_size", "lr"]
        return ordered.drop_duplicates(same).drop(columns="parallel").sort_values("trial", ignore_index=True)

    def curves(self, trials: list[str] | None = None) -> pd.DataFrame:
        """One row per trial and step (columns: `richlearn.bench.tables.CURVES`); all scored trials by default."""
        scored = self.current
        names = scored.loc[scored["role"] == "score", "trial"] if trials is None else trials
        return self.contents.curves(names)

    @cached_property
    def _ranked(self) -> pd.DataFrame:
        return leaderboard.build(self.asked, self.current, self.contents.environments)

    def leaderboard(self) -> pd.DataFrame:
        """The ranked table, derived from the records."""
        return self._ranked.copy()

    # ---- files -------------------------------------------------------------------------------------------------------

    def publish(self, *, anew: bool) -> None:
        """Write the leaderboard; pictures and TensorBoard as well where something is new or a picture is not there.

        While a search is still going on, there is nothing to draw yet.
        """
        if self.trials.empty:
            return
        self.write_leaderboard()
        there = all(self.folder.figure(name).is_file() for name in self.protocol.figures)
        if (anew or not there) and "score" in set(self.current["role"]):
            if self._figures:
                self.plot()
            self.write_tensorboard()

    def write_leaderboard(self) -> Path:
        """Write `leaderboard.csv`."""
        leaderboard.write(self.leaderboard(), self.folder.leaderboard)
        return self.folder.leaderboard

    def check_leaderboard(self) -> list[str]:
        """What is wrong with `leaderboard.csv`: its form, or that the records give something else."""
        path = self.folder.leaderboard
        if not path.is_file():
            return [f"`{path}` does not exist; `richlearn leaderboard` writes it"]
        if problems := leaderboard.validate(path):
            return problems
        if path.read_text(encoding="utf-8") == leaderboard.to_text(self.leaderboard()):
            return []
        return [f"`{path}` is not what its records give; `richlearn leaderboard` rebuilds it"]

    def plot(self) -> list[Path]:
        """Draw the protocol's figures as PNG files; those that `undrawn` names have nothing to show.

        Raises:
            UsageError: none of them can be drawn.
        """
        if self.undrawn and not self._figures:
            raise UsageError(next(iter(self.undrawn.values())))
        return [self._save(name, figure) for name, figure in self._figures.items()]

    @property
    def undrawn(self) -> dict[str, str]:
        """The figures of the protocol for which there is nothing to draw yet, and why."""
        return self._drawn[1]

    @property
    def _figures(self) -> dict[str, Any]:
        return self._drawn[0]

    @cached_property
    def _drawn(self) -> tuple[dict[str, Any], dict[str, str]]:
        from richlearn import figures

        drawn, undrawn = {}, {}
        tables = self.current, self.curves(), self.leaderboard()
        for name in self.protocol.figures:
            try:
                drawn[name] = figures.draw(name, *tables, self.asked, self._teacher(), self._data())
            except UsageError as reason:
                undrawn[name] = str(reason)
        return drawn, undrawn

    def _teacher(self) -> Any:
        """Directions and readouts of the teacher, for the trajectories; None for other tasks."""
        if "trajectories" not in self.protocol.figures or self.protocol.task.name != "teacher_student":
            return None
        from richlearn.tasks import TeacherStudent

        return TeacherStudent(**self.protocol.task.parameters, seed=self.asked.seeds[0]).teacher()

    def _data(self) -> Any:
        """Training inputs and targets of the first seed, for the figures that show them; else None."""
        if not {"solutions", "partition"} & set(self.protocol.figures):
            return None
        from richlearn.bench.build import task_of

        split = task_of(json.loads(TrialMaker(self.protocol).trial(self.protocol.cells()[0], self.asked.seeds[0]).spec)).train
        return split.inputs.numpy(), split.targets.numpy()

    def _save(self, name: str, figure: Any) -> Path:
        from richlearn import figures

        figures.save(figure, buffer := io.BytesIO())
        path = self.folder.figure(name)
        self.folder.replace(path, buffer.getvalue())
        return path

    def write_tensorboard(self) -> Path:
        """Write one TensorBoard run per cell: means and bands over seeds, histograms of δ, hparams, the figures."""
        from richlearn.figures import tensorboard

        tensorboard.write(self.folder.cells, self.asked, self.current, self.curves(), self._figures)
        return self.folder.tensorboard


def _versions(asked: Asked) -> dict[str, dict[str, Any]]:
    """The numerics that the installed code gives to each scheme's trials."""
    maker, found = TrialMaker(asked.protocol), {}
    for row in asked.cells():
        try:
            spec = maker.trial(row, 0).spec
        except UsageError:  # a user's file that is not on this machine: its recorded trials stand as they are
            spec = asked.trials.loc[asked.trials["scheme"] == row.name, "spec"].iloc[-1]
        found[row.name] = json.loads(spec)["numerics"]
    return found


def carry_out(runner: Runner) -> Results:
    """Run, then write leaderboard, figures and TensorBoard.

    Raises:
        UsageError: something about the request is wrong; nothing was written.
        RunFailed: batches raised; the others are recorded and reported.
    """
    carried = runner.run()
    results = Results(runner.folder.path)
    results.publish(anew=carried.worked)
    if carried.failures:
        raise RunFailed(carried.failures)
    return results


def default_folder(benchmark: str, suffix: str = "") -> Path:
    """Where a run goes that is not told: `runs/` and the name of the benchmark or of its file."""
    return Path("runs") / f"{find(benchmark).stem}{suffix}"


def run(protocol: Protocol | str | Path, out: Path | str | None = None, **settings: Any) -> Results:
    """Run a benchmark: train what is missing, record it, rank it, draw it.

    Args:
        protocol: a benchmark's name, the path of a YAML file, or a loaded `Protocol`.
        out: folder of the run; default `runs/` and the name.
        settings: fields of `richlearn.bench.runner.Settings` (`devices=2`, `accelerator="cpu"`, `schemes=("my.py:Mine",)`, …).

    Returns:
        trials, curves and leaderboard of the folder.

    Raises:
        UsageError: something about the request is wrong; nothing was written.
        RunFailed: batches raised; the others are recorded and reported.
    """
    asked = protocol if isinstance(protocol, Protocol) else load(protocol)
    if out is None:
        out = Path("runs") / asked.name if isinstance(protocol, Protocol) else default_folder(str(protocol))
    return carry_out(Runner(asked, RunFolder(Path(out)), replace(Settings(), **settings)))


def load_trials(folder: Path | str) -> pd.DataFrame:
    """One row per recorded trial of a run's folder (columns and units: `richlearn.bench.tables.TRIALS`)."""
    return Results(folder).trials


def load_curves(folder: Path | str) -> pd.DataFrame:
    """One row per scored trial and step of a run's folder (columns and units: `richlearn.bench.tables.CURVES`)."""
    return Results(folder).curves()
