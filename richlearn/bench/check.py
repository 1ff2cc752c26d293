"""Arguments of a protocol's components, tried on their classes: all errors at once, at their place in the file."""

import json
from collections.abc import Callable, Sequence

from richlearn.bench.protocol import Protocol, SchemeRow
from richlearn.bench.trials import TrialMaker
from richlearn.errors import RichlearnError, UsageError


def check_components(maker: TrialMaker, rows: Sequence[SchemeRow]) -> None:
    """Build task, network, optimiser and every row's scheme once.

    Raises:
        UsageError: a line `file:line:column: …` for each argument that a class refuses.
    """
    from richlearn.bench.build import network_of, optimizer_of, scheme_of, task_of

    protocol: Protocol = maker.protocol
    spec = json.loads(maker.trial(rows[0], protocol.seeds[0]).spec)
    plain = spec | {"scheme": {"name": "standard", "parameters": {}}}
    problems: list[str] = []

    def attempt(path: tuple[str | int, ...], build: Callable[[], object]) -> None:
        try:
            build()
        except RichlearnError as error:
            problems.append(protocol.problem(path, str(error)))

    attempt(("task",), lambda: task_of(spec))
    attempt(("optimizer",), lambda: optimizer_of(spec))
    if not problems:
        attempt(("network",), lambda: network_of(plain, task_of(spec)))
    for row in rows:
        attempt(row.path, lambda row=row: scheme_of({"scheme": {"name": row.name, "parameters": row.parameters}}))
    if problems:
        raise UsageError("\n".join(dict.fromkeys(problems)))
