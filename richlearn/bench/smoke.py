"""The smallest version of a protocol that still walks its whole path."""

from typing import Any

from richlearn.bench.protocol import Protocol

_STEPS, _SEEDS, _STACK, _PROBE, _CHECKS = 200, 2, 8, 32, 10
_SIZES_OF_TRAINING_SETS = [32, 128]
_SIZES = {"train_size": 128, "test_size": 256, "prime": 13}


def _corners(scheme: dict[str, Any]) -> dict[str, Any]:
    return {**scheme, "grid": {name: [axis[0], axis[-1]] if len(axis) > 1 else axis for name, axis in scheme["grid"].items()}}


def smoke(protocol: Protocol) -> Protocol:
    """`protocol` cut down to about a minute: for `--smoke`, and for trying a scheme of one's own.

    What changes: at most 200 steps (or epochs), the first 2 seeds, the first and last value of each grid axis, training sets of
    at most 32 and 128 samples where there are several, stacks of at most 8, no compilation, at most 128 training and 256 test
    samples and a prime of at most 13 (where the task has these parameters), a probe of at most 32, a look at the goal at least
    every tenth of the run, and a search of one seed and two rates without extensions. A baseline that is
    not among the remaining rows is dropped. Tasks, networks, schemes, optimiser, scores and figures stay.
    """
    data = protocol.model_dump(mode="json")
    unit = "epochs" if protocol.training.epochs else "steps"
    steps = min(protocol.training.epochs or protocol.budget(), _STEPS)
    data["seeds"] = data["seeds"][:_SEEDS]
    data["schemes"] = [_corners(scheme) for scheme in data["schemes"]]
    data["training"] |= {unit: steps, "stack": min(protocol.training.stack, _STACK), "compile": False}
    data["measure"] |= {
        "check_every": min(protocol.measure.check_every, max(1, steps // _CHECKS)),
        "probe": min(protocol.measure.probe, _PROBE),
    }
    schedule = data["optimizer"]["schedule"]
    schedule["warmup"] = min(schedule["warmup"], steps)
    if protocol.train_sizes:
        data["train_sizes"] = [min(sizes) for sizes in zip(_SIZES_OF_TRAINING_SETS, protocol.train_sizes, strict=False)]
    parameters = data["task"]["parameters"]
    parameters |= {name: min(parameters[name], size) for name, size in _SIZES.items() if isinstance(parameters.get(name), int)}
    if protocol.search:
        if protocol.search.steps:
            data["search"]["steps"] = min(protocol.search.steps, steps)
        data["search"] |= {"seeds": data["search"]["seeds"][:1], "values": min(protocol.search.values, 2), "max_extensions": 0}
    small = protocol.changed({**data, "baseline": None})
    kept = protocol.baseline_row() in small.cells()
    return small.changed(data) if kept else small
