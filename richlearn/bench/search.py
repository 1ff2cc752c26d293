"""Each scheme's own learning rate: which rates to try next, given the search trials that are recorded."""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from richlearn.bench.protocol import Protocol
from richlearn.bench.rows import SchemeRow
from richlearn.bench.trials import Trial, TrialMaker
from richlearn.errors import NotApplicable

if TYPE_CHECKING:
    from torch import nn

    from richlearn.tasks import Task

Outcomes = Mapping[str, Mapping[str, Any]]  # trial hash -> its row of the trials table


def _rounded(rate: float) -> float:
    """Three significant digits: a rate is part of a trial's identity, and machines differ in the last bits of an eigenvalue."""
    return float(f"{rate:.3g}")


def middle_size(protocol: Protocol) -> int | None:
    """The training-set size at which rates are searched: of an even number of sizes the smaller of the middle two."""
    sizes = protocol.train_sizes
    return sizes[(len(sizes) - 1) // 2] if sizes else None


def centre(maker: TrialMaker, row: SchemeRow) -> tuple[float, str | None]:
    """The middle of a row's search, and why the row cannot be served, if so.

    Under SGD 2/λ_max(H) at initialisation, the edge of stability of gradient descent: H = w ℓ'' K is the loss's curvature
    in function space, K the NTK on the probe with the scheme's learning-rate multipliers, w ℓ'' the weight and curvature
    of the loss (for MSE and one output 1/λ_max(K/n)); geometric mean over the search seeds. Under Adam the protocol's rate.
    A deep network that starts near the saddle at 0 has no curvature yet, and its edge is far beyond what it can be trained at:
    with `search.centre: fastest_layer` the middle is the protocol's rate divided by the largest multiplier of any layer's weights.
    """
    from richlearn.bench.build import network_of, task_of

    assert maker.protocol.search is not None
    logs = []
    for seed in maker.protocol.search.seeds:
        spec = json.loads(maker.trial(row, seed, train_size=middle_size(maker.protocol)).spec)
        task = task_of(spec)
        try:
            network, multipliers = network_of(spec, task)
        except NotApplicable as reason:
            return maker.lr(row), str(reason)
        if maker.protocol.search.centre == "fastest_layer":
            logs.append(math.log(maker.lr(row) / _largest(network, multipliers.lr)))
        elif maker.protocol.optimizer.name == "sgd":
            logs.append(math.log(_stability_edge(network, multipliers.lr, task, spec["measure"]["probe"])))
    return (_rounded(math.exp(sum(logs) / len(logs))) if logs else maker.lr(row)), None


def _largest(network: "nn.Module", rates: Mapping[str, float]) -> float:
    """The largest multiplier of any weight matrix; of a network without one, of any parameter."""
    found = {name: parameter.ndim > 1 for name, parameter in network.named_parameters()}
    return max(rates.get(name, 1.0) for name, matrix in found.items() if matrix or not any(found.values()))


def _stability_edge(network: "nn.Module", rates: Mapping[str, float], task: "Task", probe: int) -> float:
    """2/λ_max(H); a tiny floor keeps a network without any gradient (all zeros) searchable."""
    import torch

    from richlearn.kernels import empirical_ntk

    inputs = task.train.inputs[:probe]
    kernel = empirical_ntk(network, inputs, outputs="full", rates=rates).double() / len(inputs)
    weight = 1.0 if task.loss.mean else len(task.train.inputs)
    curvature = weight * task.loss.curvature(task.out_features)
    return 2 / (curvature * max(float(torch.linalg.eigvalsh(kernel)[-1]), 1e-12))


@dataclass
class _Row:
    """The state of one row's search: rate k is centre · 10^{k/2}."""

    row: SchemeRow
    centre: float
    tried: dict[int, int]  # k -> the budget of its runs
    extended: dict[int, int]  # side (−1, +1) -> extensions so far

    def rate(self, k: int) -> float:
        return _rounded(self.centre * 10 ** (k / 2))


@dataclass(frozen=True)
class Search:
    """The learning-rate search of a group of rows, in rounds: the next one starts when all of a round is recorded.

    Attributes:
        maker: of the protocol's trials.
        rows: the group.
        centres: the middle of each row's search.
    """

    maker: TrialMaker
    rows: list[SchemeRow]
    centres: Callable[[SchemeRow], tuple[float, str | None]]

    @property
    def protocol(self) -> Protocol:
        """The protocol that is searched for."""
        return self.maker.protocol

    @property
    def _offsets(self) -> list[int]:
        """The rates that every row tries."""
        assert self.protocol.search is not None
        values = self.protocol.search.values
        return [k - (values - 1) // 2 for k in range(values)]

    @property
    def _budget(self) -> int:
        assert self.protocol.search is not None
        return self.protocol.search.steps or self.protocol.budget(middle_size(self.protocol))

    @property
    def _races(self) -> bool:
        """Whether a rate may be given up once it is too late to win: where a time is searched and no schedule looks at the budget."""
        assert self.protocol.search is not None
        return self.protocol.search.objective == "steps_to_goal" and self.protocol.optimizer.schedule.name != "cosine"

    def _start(self, row: SchemeRow, middle: float) -> _Row:
        return _Row(row, middle, dict.fromkeys([0] if self._races else self._offsets, self._budget), {-1: 0, 1: 0})

    def _trials(self, state: _Row, rates: Iterable[int]) -> list[Trial]:
        assert self.protocol.search is not None
        size, seeds = middle_size(self.protocol), self.protocol.search.seeds
        return [self.maker.trial(state.row, seed, state.rate(k), "search", size, state.tried[k]) for k in rates for seed in seeds]

    def _objective(self, state: _Row, k: int, outcomes: Outcomes) -> tuple[float, float]:
        """What is made smallest, and what decides ties.

        Of a loss its logarithms summed over the seeds, of an error, which may be 0, the errors; infinite if a seed diverged; then the loss.
        Of a time the median (of an even number of seeds the upper one), where a run that diverges has missed the goal; then the loss where
        the median is the whole budget, which all rates have then, else the smaller rate.
        """
        assert self.protocol.search is not None
        found = [outcomes[trial.hash] for trial in self._trials(state, [k])]
        diverged = [trial["status"] != "finished" for trial in found]
        if self.protocol.search.objective != "steps_to_goal" and any(diverged):
            return math.inf, math.inf
        loss = math.inf if any(diverged) else sum(math.log(max(float(trial["test_loss"]), 1e-300)) for trial in found)
        if self.protocol.search.objective == "test_loss":
            return loss, loss
        if self.protocol.search.objective == "test_error":
            return sum(1.0 - float(trial["test_accuracy"]) for trial in found), loss
        missed = [failed or _missing(trial["sustained_reached"]) for failed, trial in zip(diverged, found, strict=True)]
        times = [state.tried[k] if late else int(trial["sustained_reached"]) for late, trial in zip(missed, found, strict=True)]
        time = statistics.median_high(times)
        return time, loss if time >= self._budget else 0.0

    def _best(self, state: _Row, outcomes: Outcomes) -> int:
        """The rate with the best objective; of equal ones the smaller."""
        return min(sorted(state.tried), key=lambda k: self._objective(state, k, outcomes))

    def _affordable(self, state: _Row, outcomes: Outcomes) -> int:
        """The budget of a further rate: in a race until a goal that is reached as late as at the best rate so far has been sustained."""
        if not self._races:
            return self._budget
        time, _ = self._objective(state, self._best(state, outcomes), outcomes)
        return min(self._budget, int(time) + self.protocol.goal.sustained * self.protocol.check_every(middle_size(self.protocol)))

    def _advance(self, state: _Row, outcomes: Outcomes) -> list[int]:
        """Takes up the rates to try after those tried: a race's others, then one further rate where the best one is at an edge and that
        side may still grow.
        """
        assert self.protocol.search is not None
        further = [k for k in self._offsets if k not in state.tried]
        if not further:
            best = self._best(state, outcomes)
            for side, edge in ((-1, min(state.tried)), (1, max(state.tried))):
                if best == edge and state.extended[side] < self.protocol.search.max_extensions:
                    state.extended[side] += 1
                    further = [edge + side]
                    break
        if further:
            state.tried |= dict.fromkeys(further, self._affordable(state, outcomes))
        return further

    def rounds(self, outcomes: Outcomes) -> Iterator[tuple[list[Trial], bool]]:
        """Each round's trials and whether all of them are recorded; stops after a round that is not.

        A round depends on the complete rounds before it alone, so its batches do not depend on what else is recorded.
        """
        states = self._states()
        wanted = [(state, list(state.tried)) for state in states]
        while wanted:
            trials = [trial for state, rates in wanted for trial in self._trials(state, rates)]
            complete = all(trial.hash in outcomes for trial in trials)
            yield trials, complete
            if not complete:
                return
            wanted = [(state, rates) for state in states if (rates := self._advance(state, outcomes))]

    def _states(self) -> list[_Row]:
        middles = [(row, *self.centres(row)) for row in self.rows]
        return [self._start(row, middle) for row, middle, reason in middles if reason is None]

    def found(self, outcomes: Outcomes) -> dict[str, float]:
        """The rate of each row (by `identity`) after the last round; a row that cannot be served keeps the protocol's."""
        states = self._states()
        rates = {row.identity: self.maker.lr(row) for row in self.rows}
        for state in states:
            while self._advance(state, outcomes):
                pass
            rates[state.row.identity] = state.rate(self._best(state, outcomes))
        return rates


def _missing(value: Any) -> bool:
    return value is None or value != value or str(value) == "<NA>"
