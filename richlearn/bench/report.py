"""From a run's folder to what a person reads: leaderboard, pictures, TensorBoard."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from richlearn.bench import leaderboard
from richlearn.bench._yaml import load as load_yaml
from richlearn.bench.content import canonical_json
from richlearn.bench.folder import RunFolder
from richlearn.bench.protocol import Protocol, SchemeRow, parse
from richlearn.bench.records import Contents, RecordStore
from richlearn.errors import UsageError


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

    def current(self) -> pd.DataFrame:
        """Trials whose content is what the installed code would compute; stale ones and their scores are left out."""
        if self.trials.empty:
            return self.trials
        newest = self.trials["spec"].map(_numerics)
        parts = _versions(self.asked)
        return self.trials[[parts.get(scheme) == found for scheme, found in zip(self.trials["scheme"], newest, strict=True)]]

    def curves(self, trials: list[str] | None = None) -> pd.DataFrame:
        """One row per trial and step (columns: `richlearn.bench.tables.CURVES`); all scored trials by default."""
        scored = self.current()
        names = scored.loc[scored["role"] == "score", "trial"] if trials is None else trials
        return self.contents.curves(names)

    def leaderboard(self) -> pd.DataFrame:
        """The ranked table, derived from the records now."""
        return leaderboard.build(self.asked, self.current(), self.contents.environments)

    # ---- files -------------------------------------------------------------------------------------------------------

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
        given = leaderboard.to_text(self.leaderboard())
        return (
            []
            if path.read_text(encoding="utf-8") == given
            else [f"`{path}` is not what its records give; `richlearn leaderboard` rebuilds it"]
        )

    def plot(self) -> list[Path]:
        """Draw the protocol's figures as PNG files."""
        return [self._save(name, figure) for name, figure in self._figures().items()]

    def _figures(self) -> dict[str, Any]:
        from richlearn import figures

        tables = self.current(), self.curves(), self.leaderboard()
        return {name: figures.draw(name, *tables, self.asked, self._teacher()) for name in self.protocol.figures}

    def _teacher(self) -> Any:
        """Directions and readouts of the teacher, for the trajectories; None for other tasks."""
        if "trajectories" not in self.protocol.figures or self.protocol.task.name != "teacher_student":
            return None
        from richlearn.tasks import TeacherStudent

        return TeacherStudent(**self.protocol.task.parameters, seed=self.asked.seeds[0]).teacher()

    def _save(self, name: str, figure: Any) -> Path:
        import io

        buffer = io.BytesIO()
        figure.savefig(buffer, dpi=150, metadata={"Software": None})
        path = self.folder.figure(name)
        self.folder.replace(path, buffer.getvalue())
        return path

    def write_tensorboard(self) -> Path:
        """Write one TensorBoard run per cell: means and bands over seeds, histograms of δ, hparams, the figures."""
        from richlearn.figures import tensorboard

        tensorboard.write(self.folder.cells, self.asked, self.current(), self.curves(), self._figures())
        return self.folder.tensorboard


def _numerics(spec: str) -> str:
    return canonical_json(json.loads(spec)["numerics"])


def _versions(asked: Asked) -> dict[str, str]:
    """The numerics that the installed code gives to each scheme's trials."""
    from richlearn.bench.trials import TrialMaker

    maker, found = TrialMaker(asked.protocol), {}
    for row in asked.cells():
        try:
            found[row.name] = _numerics(maker.trial(row, 0).spec)
        except UsageError:  # a user's file that is not on this machine: its recorded trials stand as they are
            rows = asked.trials[asked.trials["scheme"] == row.name]
            found[row.name] = _numerics(json.dumps(json.loads(rows["spec"].iloc[-1])))
    return found


def load_trials(folder: Path | str) -> pd.DataFrame:
    """One row per recorded trial of a run's folder (columns and units: `richlearn.bench.tables.TRIALS`)."""
    return Results(folder).trials


def load_curves(folder: Path | str) -> pd.DataFrame:
    """One row per scored trial and step of a run's folder (columns and units: `richlearn.bench.tables.CURVES`)."""
    return Results(folder).curves()
