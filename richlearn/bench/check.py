"""Arguments of a protocol's components, tried on their classes: all errors at once, at their place in the file."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from richlearn.bench._sections import VARIANT
from richlearn.bench.protocol import Protocol
from richlearn.bench.rows import SchemeRow
from richlearn.bench.trials import TrialMaker
from richlearn.errors import NotApplicable, RichlearnError, UsageError

if TYPE_CHECKING:
    from torch import nn


def _check_stackable(network: "nn.Module") -> None:
    from richlearn.training.burst import check_stackable

    try:
        check_stackable(network)
    except NotApplicable as reason:
        raise UsageError(f"{reason}; set training.stack to 1, so that networks train one by one") from None


def check_components(maker: TrialMaker, rows: Sequence[SchemeRow]) -> None:
    """Build task, network, optimiser and every row's scheme once.

    Raises:
        UsageError: a line `file:line:column: …` for each argument that a class refuses.
    """
    from richlearn.bench.build import check_goal, network_of, optimizer_of, scheme_of, task_of
    from richlearn.networks._trace import as_input, undisturbed

    protocol: Protocol = maker.protocol
    problems: list[str] = []

    def attempt(path: tuple[str | int, ...], build: Callable[[], object]) -> None:
        try:
            build()
        except RichlearnError as error:
            problems.append(protocol.problem(path, str(error)))
        except Exception as error:  # a user's own code may raise anything
            problems.append(protocol.problem(path, f"{type(error).__name__}: {error}".splitlines()[0]))

    def serves(spec: dict) -> None:
        task = task_of(spec)
        network, _ = network_of(spec, task)
        with undisturbed(network):
            answer = network(as_input(network, task.train.inputs[:1]))
        if answer.shape != (1, task.out_features):
            raise UsageError(
                f"answers of shape (n, {task.out_features}) belong to the task, got (n, {', '.join(map(str, answer.shape[1:]))})"
            )
        if protocol.training.stack > 1 and maker.strategy != "ddp":
            _check_stackable(network)

    def scheme(row: SchemeRow) -> None:
        scheme_of({"scheme": {"name": row.name, "parameters": row.arguments}})
        maker.lr(row)

    for variant in protocol.variants or [None]:
        row = SchemeRow("standard", {VARIANT: variant.name} if variant else {})
        spec = json.loads(maker.trial(row, protocol.seeds[0]).spec)
        place = ("variants", protocol.variants.index(variant)) if variant else ()
        attempt((*place, "task"), partial(task_of, spec))
        attempt(("optimizer",), partial(optimizer_of, spec))
        if not problems:
            attempt(("goal",), partial(check_goal, spec))
        if not problems:
            attempt((*place, "network"), partial(serves, spec))
    for row in rows:
        attempt(row.path, partial(scheme, row))
    if problems:
        raise UsageError("\n".join(dict.fromkeys(problems)))
