"""From any number of a leaderboard back to its trials: curves, protocol, seeds, commit, hardware, command."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from richlearn.bench.content import canonical_json
from richlearn.errors import UsageError, nearest
from richlearn.report import Results


def run_folders(root: Path) -> list[Path]:
    """Folders under `root` that hold a run, `root` itself included."""
    return sorted(path.parent for path in [*root.glob("protocol.yaml"), *root.glob("*/protocol.yaml")])


def _trial(results: Results, row: Any, curve: bool) -> dict[str, Any]:
    """One trial with all that made it."""
    found = {name: value for name, value in row.items() if value is not None and str(value) != "<NA>" and value == value}
    environment = results.contents.environments.loc[row["batch"]]
    found |= {"spec": json.loads(row["spec"]), "environment": environment.to_dict()}
    added = "" if any(cell.name == row["scheme"] for cell in results.protocol.cells()) else f" --scheme {row['scheme']}"
    found["record"] = str(results.folder.record(row["batch"]))
    size = f" --only train_size={found['train_size']}" if "train_size" in found else ""
    found["again"] = f"richlearn run {results.folder.protocol}{added} --only seed={row['seed']}{size} --out elsewhere"
    if curve:
        table = results.curves([row["trial"]]).drop(columns=["trial", "delta", "directions"])
        found["curve"] = json.loads(table.to_json(orient="records"))
    return found


def look_up(name: str, folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The trials that `name` means: a trial's hash (or its first 6 digits or more), or a row such as `unbalanced(tau=0.1, delta=1)`.

    Raises:
        UsageError: nothing is called so; the nearest rows are given.
    """
    labels: list[str] = []
    for results in map(Results, folders):
        trials = results.trials
        hit = trials[trials["trial"].str.startswith(name)] if len(name) >= 6 else trials.iloc[:0]
        rows = {row.label: row for row in results.asked.cells()}
        if hit.empty and (row := rows.get(name)) is not None:
            hit = trials[(trials["scheme"] == row.name) & trials["parameters"].eq(canonical_json(row.parameters))]
        if not hit.empty:
            return [_trial(results, row, curve=len(hit) == 1) for row in hit.sort_values(["role", "seed", "lr"]).to_dict("records")]
        labels += rows
    where = ", ".join(map(str, folders)) or "no run folder"
    raise UsageError(f"no trial and no row is called `{name}` in {where}; {nearest(name, labels) if labels else 'run a benchmark first'}")
