"""What a plan will cost, from operation counts: good to a factor of two, before anything has run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from richlearn.bench.trials import Batch

_FLOPS = 6e10  # of one core in the matrix products of a small network, float32
_OVERHEAD = 3e-6  # seconds per network and update that no operation explains
_STATES = 4  # parameters, their copy while a burst runs, gradients, the kernel metric's copies of θ
_SPREAD = 1.5  # what a member was measured to take (benchmarks/performance/training.py memory), over what its tensors hold
_WIDTH = 8  # members whose activations are alive together on a CPU


@dataclass(frozen=True)
class Estimate:
    """Rough costs.

    Attributes:
        core_hours: of one CPU core, for the given batches.
        memory: peak bytes of the largest batch beyond the imports (some 600 MB a worker).
        disk: bytes of the records.
    """

    core_hours: float
    memory: int
    disk: int


def estimate(batches: Sequence[Batch]) -> Estimate:
    """The cost of `batches`: the largest training set's first trial stands for all networks; runs that end early cost less."""
    if not batches:
        return Estimate(0.0, 0, 0)
    import torch

    from richlearn.bench.build import network_of, task_of

    spec = json.loads(max(batches, key=lambda batch: batch.trials[0].train_size or 0).trials[0].spec)
    task = task_of(spec)
    network, _ = network_of(spec | {"scheme": {"name": "standard", "parameters": {}}}, task)
    training, measure = spec["training"], spec["measure"]
    size = len(task.train.inputs)
    samples, bytes_each = min(training["batch_size"] or size, size), next(network.parameters()).element_size()
    tables = {parameter for module in network.modules() if isinstance(module, torch.nn.Embedding) for parameter in module.parameters()}
    weights = [p for p in network.parameters() if p.ndim > 1 and p not in tables]
    count, hidden = sum(p.numel() for p in network.parameters() if p not in tables), sum(len(p) for p in weights)
    # Forward and weight gradients cost two operations a weight and sample each; input gradients all but the first layer's.
    flops = samples * (6 * count - 2 * weights[0].numel()) * (bytes_each / 4)
    trials = sum(len(batch.trials) for batch in batches)
    updates = sum(len(batch.trials) * batch.steps for batch in batches)
    largest = max(len(batch.trials) for batch in batches)
    slots = 2 if spec["optimizer"]["name"] != "sgd" else 1
    member = _SPREAD * bytes_each * (count * (_STATES + slots) + 2 * min(measure["probe"], size) ** 2)
    shared = bytes_each * (_WIDTH * hidden * samples * 3 + task.train.inputs.numel() + task.test.inputs.numel())
    rows = training["steps"] / measure["check_every"] + 6 * measure["points_per_decade"]
    return Estimate(
        updates * (flops / _FLOPS + _OVERHEAD) / 3600,
        int(largest * member + shared),
        int(trials * (rows * 12 + 24 * (hidden * 4 + 40))),
    )
