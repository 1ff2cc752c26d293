"""A trial is content: everything that decides its numbers, hashed; a batch is the trials that one fit trains."""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from richlearn import catalog
from richlearn.bench._sections import VARIANT
from richlearn.bench.content import canonical_json, content_hash, text_hash
from richlearn.bench.protocol import Protocol
from richlearn.bench.rows import SchemeRow
from richlearn.errors import ParameterError, UsageError

Role = Literal["score", "search"]


@dataclass(frozen=True)
class Trial:
    """One network trained once.

    Attributes:
        spec: canonical JSON of all that decides its numbers.
        row: scheme and parameters.
        seed: of data, initialisation and order.
        lr: base learning rate, the protocol's rule applied.
        steps: its budget, in updates.
        role: whether it is scored or serves the learning-rate search.
        train_size: of the training set, where the protocol has several.
    """

    spec: str
    row: SchemeRow
    seed: int
    lr: float
    steps: int
    role: Role = "score"
    train_size: int | None = None

    @cached_property
    def hash(self) -> str:
        """SHA-256 of `spec`: what the trial is called everywhere."""
        return text_hash(self.spec)


@dataclass(frozen=True)
class Batch:
    """Trials of one seed, shape, training set and budget that train together.

    Attributes:
        trials: its members, in the protocol's order.
        stacked: whether they train as one stack; else one by one.
    """

    trials: tuple[Trial, ...]
    stacked: bool

    @cached_property
    def hash(self) -> str:
        """Hash of the members' hashes and of how they train."""
        return content_hash({"trials": [trial.hash for trial in self.trials], "stacked": self.stacked})

    @property
    def seed(self) -> int:
        """The seed that all members share."""
        return self.trials[0].seed

    @property
    def steps(self) -> int:
        """The budget that all members share, in updates."""
        return self.trials[0].steps

    @property
    def role(self) -> Role:
        """The role that all members share."""
        return self.trials[0].role


@dataclass(frozen=True)
class TrialMaker:
    """Makes the trials of a protocol.

    Attributes:
        protocol: what is asked.
        strategy: "auto", or "ddp" where each trial trains data-parallel.
        devices: of data-parallel training; it decides rounding.
    """

    protocol: Protocol
    strategy: str = "auto"
    devices: int = 1

    @cached_property
    def _common(self) -> dict[str, Any]:
        protocol = self.protocol
        sections = ("task", "network", "measure", "goal", "regime")
        training = protocol.training.model_dump(mode="json", exclude={"stack", "epochs"})
        parallel = {"strategy": self.strategy, "devices": self.devices if self.strategy == "ddp" else 1}
        return {
            **{name: getattr(protocol, name).model_dump(mode="json") for name in sections},
            "optimizer": protocol.optimizer.model_dump(mode="json", exclude={"lr", "lr_rule"}),
            "training": training | parallel,
            **({"prediction": protocol.prediction} if protocol.prediction else {}),
        }

    @cached_property
    def _versions(self) -> dict[str, int | str]:
        return {
            "task": catalog.TASKS.version(self.protocol.task.name),
            "network": catalog.NETWORKS.version(self.protocol.network.name),
            "training": catalog.TRAINING_NUMERICS,
            "measuring": catalog.MEASURING_NUMERICS,
            **({"prediction": catalog.PREDICTIONS.version(name)} if (name := self.protocol.prediction) else {}),
        }

    def lr(self, row: SchemeRow) -> float:
        """The protocol's learning rate of a row: its `lr`, divided by τ² where the rule says so and the row has a τ.

        Raises:
            ParameterError: this τ gives no positive, finite rate.
        """
        optimizer = self.protocol.optimizer
        if optimizer.lr_rule == "constant" or "tau" not in row.parameters:
            return optimizer.lr
        tau = row.parameters["tau"]
        with suppress(TypeError, ArithmeticError):
            if 0 < (rate := optimizer.lr / tau**2) < math.inf:
                return rate
        raise ParameterError(f"`lr_rule` inverse_tau_squared gives no learning rate for `tau` = {tau!r}; expected a number away from 0")

    def _varied(self, row: SchemeRow) -> dict[str, Any]:
        """Task and network of a row's variant."""
        if (variant := self.protocol.variant(row)) is None:
            return {}
        pairs = (("task", variant.task), ("network", variant.network))
        return {name: {**self._common[name], "parameters": {**self._common[name]["parameters"], **own}} for name, own in pairs}

    def _timed(self, common: dict[str, Any], train_size: int | None, steps: int | None) -> dict[str, Any]:
        """What epochs come to in updates; `steps` takes the place of the budget."""
        protocol = self.protocol
        training, measure, schedule = common["training"], common["measure"], common["optimizer"]["schedule"]
        if protocol.training.epochs:
            size = train_size or common["task"]["parameters"]["train_size"]
            every = protocol.updates_per_epoch(size)
            training, measure = training | {"steps": protocol.budget(size)}, measure | {"check_every": protocol.check_every(size)}
            schedule = {**schedule, "every": every} if schedule.get("per_epoch") else schedule
        if steps is not None:
            training = training | {"steps": steps}
        schedule = {name: value for name, value in schedule.items() if name != "per_epoch"}
        return {"training": training, "measure": measure, "optimizer": common["optimizer"] | {"schedule": schedule}}

    def trial(
        self,
        row: SchemeRow,
        seed: int,
        lr: float | None = None,
        role: Role = "score",
        train_size: int | None = None,
        steps: int | None = None,
    ) -> Trial:
        """The trial of a row and a seed, at the protocol's learning rate, largest training set and budget unless others are given."""
        rate = self.lr(row) if lr is None else lr
        train_size = train_size or max(self.protocol.train_sizes, default=None)
        common = self._common | self._varied(row)
        if train_size is not None:
            common["task"] = {**common["task"], "parameters": {**common["task"]["parameters"], "train_size": train_size}}
        spec = (
            common
            | self._timed(common, train_size, steps)
            | {
                "scheme": {"name": row.name, "parameters": row.arguments},
                "seed": seed,
                "lr": rate,
                "numerics": self._versions | {"scheme": catalog.SCHEMES.version(row.name)},
            }
        )
        return Trial(canonical_json(spec), row, seed, rate, spec["training"]["steps"], role, train_size)

    def scored(self, rows: Iterable[SchemeRow], rates: Mapping[str, float] | None = None) -> list[Trial]:
        """The scored trials of `rows`: seed by seed, size by size; `rates` are those that a search found, by `SchemeRow.identity`."""
        rows, found = list(rows), rates or {}
        return [
            self.trial(row, seed, found.get(row.identity), train_size=size)
            for seed in self.protocol.seeds
            for size in self.protocol.train_sizes or (None,)
            for row in rows
        ]

    def batches(self, trials: Iterable[Trial]) -> list[Batch]:
        """`trials` cut into batches: seed by seed, size by size, variant by variant, budget by budget, `stack` at a time."""
        size, alike = self.protocol.training.stack, dict[tuple[int, int | None, str | None, int], list[Trial]]()
        for trial in trials:
            alike.setdefault((trial.seed, trial.train_size, trial.row.parameters.get(VARIANT), trial.steps), []).append(trial)
        chunks = [group[start : start + size] for group in alike.values() for start in range(0, len(group), size)]
        stacked = size > 1 and self.strategy != "ddp"
        return [Batch(tuple(chunk), stacked) for chunk in chunks]


def rows_of(protocol: Protocol, extra: Sequence[str]) -> list[list[SchemeRow]]:
    """The protocol's rows, then each extra scheme's row as a group of its own, so that adding one leaves other batches alone.

    Raises:
        UsageError: an extra scheme is unknown, or is among the protocol's rows.
    """
    own = protocol.cells()
    groups = [own]
    for name in extra:
        catalog.SCHEMES.check(name)
        row = SchemeRow(name, {})
        if any(row in group for group in groups):
            raise UsageError(f"scheme `{name}` is already a row of `{protocol.name}`; --scheme adds one that is not")
        groups.append([row])
    return groups
