"""How fast a stack trains, against one-by-one Lightning, one-by-one torch, a NumPy loop and the matrix products alone.

    OMP_NUM_THREADS=1 python benchmarks/performance/training.py [sphere|plane|callback|memory]

One core, one run, CPU time of this process (others on the machine count less), minima over repeats taken in turn (so that a
machine whose speed drifts is fair to all); figures are milliseconds per network and optimiser update. Read ratios, not times.
"""

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from contest import in_turn, main, table, trainer

from richlearn.networks import TwoLayer
from richlearn.schemes import Unbalanced
from richlearn.seeds import generator
from richlearn.tasks import TeacherStudent
from richlearn.training import LossRecorder, Member, NetworkModule, Optimizer, RichnessMonitor, StackedModule, check_times, log_times

SPHERE = {"dimension": 100, "train_size": 1000, "test_size": 10_000}
PLANE = {"dimension": 2, "train_size": 20, "test_size": 1000}
WIDTH = 50


def network(task: TeacherStudent, index: int = 0) -> TwoLayer:
    made = TwoLayer(task.in_features, 1, width=WIDTH).double()
    Unbalanced(tau=0.3, delta=(index % 9 - 4) / 4).apply(made, generator(0, "network"))
    return made.float()


def stack(task: TeacherStudent, count: int, *, compiled: bool, cuts: Sequence[int] = (), burst=None) -> StackedModule:
    networks = [network(task, index) for index in range(count)]
    members = [Member(f"t{index}", 0.05) for index in range(count)]
    return StackedModule(
        networks, task.loss, Optimizer(lr=0.05), members, task.train, task.order(), cuts=cuts, burst=burst, compiled=compiled
    )


def fitted(module, steps: int, callbacks: Sequence = (), datamodule=None) -> float:
    running = trainer(steps, callbacks)
    start = time.process_time()
    running.fit(module, datamodule=datamodule)
    return time.process_time() - start


# ---- the peers -------------------------------------------------------------------------------------------------------


def lightning_loop(task: TeacherStudent, steps: int) -> float:
    return fitted(NetworkModule(network(task), task.loss, Optimizer(lr=0.05)), steps, datamodule=task)


def torch_loop(task: TeacherStudent, steps: int) -> float:
    one, (inputs, targets) = network(task), (task.train.inputs, task.train.targets)
    optimizer = torch.optim.SGD(one.parameters(), lr=0.05)
    start = time.process_time()
    for _ in range(steps):
        optimizer.zero_grad()
        (one(inputs) - targets).square().mean().backward()
        optimizer.step()
    return time.process_time() - start


def numpy_loop(task: TeacherStudent, steps: int) -> float:
    """The gradient by hand, float32 throughout."""
    one = network(task)
    into, out = (p.detach().numpy().copy() for p in one.parameters())
    out, inputs, targets = out[0], task.train.inputs.numpy(), task.train.targets.numpy()[:, 0]
    rate, share = np.float32(0.05), np.float32(2 / len(inputs))
    start = time.process_time()
    for _ in range(steps):
        pre = inputs @ into.T
        active = pre > 0
        hidden = pre * active
        residual = (hidden @ out - targets) * share
        into -= rate * ((residual[:, None] * active * out).T @ inputs)
        out -= rate * (hidden.T @ residual)
    return time.process_time() - start


def products_alone(task: TeacherStudent, steps: int, members: int = 4) -> float:
    """The two large matrix products of one update of `members` networks, per network."""
    inputs = task.train.inputs
    into = torch.randn(members * WIDTH, inputs.shape[1])
    pre, gradient = torch.empty(len(into), len(inputs)), torch.empty_like(into)
    start = time.process_time()
    for _ in range(steps):
        torch.mm(into, inputs.T, out=pre)
        torch.mm(pre, inputs, out=gradient)
    return (time.process_time() - start) / members


# ---- the four questions ----------------------------------------------------------------------------------------------


def sphere(repeats: int) -> None:
    """d = 100, h = 50, n = 1000, full batch, stacks of 16 to 1,024 members."""
    task, peers = TeacherStudent(**SPHERE), 500
    bursts = {kind: stack(task, 16, compiled=kind == "compiled").burst for kind in ("compiled", "eager")}

    def stacked(count: int, kind: str) -> float:
        steps = max(100, 6400 // count)  # at least a burst, and long enough that starting a Trainer does not count
        return fitted(stack(task, count, compiled=kind == "compiled", burst=bursts[kind]), steps) / steps / count * 1e3

    stacked(16, "compiled")  # compile
    contestants: dict[str, Callable[[], float]] = {
        "Lightning, one by one": lambda: lightning_loop(task, peers) / peers * 1e3,
        "torch, one by one": lambda: torch_loop(task, peers) / peers * 1e3,
        "NumPy, gradient by hand": lambda: numpy_loop(task, peers) / peers * 1e3,
        "the two matrix products alone": lambda: products_alone(task, peers) / peers * 1e3,
        "stack of 16, eager": lambda: stacked(16, "eager"),
    }
    contestants |= {f"stack of {n}, compiled": lambda n=n: stacked(n, "compiled") for n in (16, 64, 256, 1024)}
    table(
        "d=100, h=50, n=1000, float32, full batch (stacks under a Lightning Trainer)",
        in_turn(contestants, repeats),
        "stack of 16, compiled",
    )


def plane(repeats: int) -> None:
    """d = 2, h = 50, n = 20; compilation counted in a run of 1,000,000 updates of the figure's four networks."""
    task, steps, peers = TeacherStudent(**PLANE), 20_000, 1000
    burst = stack(task, 4, compiled=True).burst
    first = fitted(stack(task, 4, compiled=True, burst=burst), 1000)
    contestants = {
        "torch, one by one": lambda: torch_loop(task, peers) / peers * 1e3,
        "NumPy, gradient by hand": lambda: numpy_loop(task, peers) / peers * 1e3,
        "stack of 4, compiled": lambda: fitted(stack(task, 4, compiled=True, burst=burst), steps) / steps / 4 * 1e3,
    }
    best = in_turn(contestants, repeats)
    ours = "stack of 4, 1e6 updates, compilation counted"
    best[ours] = best["stack of 4, compiled"] + (first - best["stack of 4, compiled"] * 4) / 1e6 / 4 * 1e3
    table(f"d=2, h=50, n=20, float32, full batch (compilation {first:.1f} s)", best, ours)


def callback(repeats: int) -> None:
    """The Lightning loop with the suite's callbacks, against a bare loop over the same bursts."""
    task, count, steps = TeacherStudent(**SPHERE), 16, 3000
    measured = log_times(steps, 4)
    checks = sorted({*measured, *check_times(steps, 100)})
    burst = stack(task, count, compiled=True).burst

    def bare() -> float:
        module = stack(task, count, compiled=True, burst=burst)
        start = time.process_time()
        for begin in range(0, steps, 1000):
            given = module._inputs_of(begin, begin + 1000)
            for part in module._slices(module._training):
                module._train_slice(part, begin, begin + 1000, *given)
        return time.process_time() - start

    def monitored(details: bool) -> float:
        callbacks = [RichnessMonitor(task.train.inputs[:256], measured, details=details)]
        return fitted(stack(task, count, compiled=True, cuts=measured, burst=burst), steps, callbacks)

    def recorded() -> float:
        callbacks = [LossRecorder(task.train, task.test, checks), RichnessMonitor(task.train.inputs[:256], measured, details=False)]
        return fitted(stack(task, count, compiled=True, cuts=checks, burst=burst), steps, callbacks)

    bare()
    name = "hand-written loop over the bursts"
    contestants = {
        name: bare,
        "Trainer": lambda: fitted(stack(task, count, compiled=True, cuts=measured, burst=burst), steps),
        "Trainer + RichnessMonitor, as records have it": lambda: monitored(details=False),
        "Trainer + RichnessMonitor with details": lambda: monitored(details=True),
        "Trainer + RichnessMonitor + LossRecorder, all of `quick`": recorded,
    }
    best = in_turn(contestants, repeats)
    table("16 members, 3,000 updates, as in `quick`", {name: value / steps / count * 1e3 for name, value in best.items()}, name)


def memory(repeats: int) -> None:
    """Peak memory of a process that trains 1 to 1,024 members, beyond that of one that trains 8."""
    for count in (8, 256, 512, 1024):
        program = (
            f"import sys; sys.path.insert(0, {os.path.dirname(__file__)!r}); import training as t\n"
            f"task = t.TeacherStudent(**t.SPHERE); m = t.stack(task, {count}, compiled=False)\n"
            "t.fitted(m, 2, [t.RichnessMonitor(task.train.inputs[:256], [0, 2])])\n"
            "print(t.resource.getrusage(t.resource.RUSAGE_SELF).ru_maxrss // 1024)"
        )
        found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
        print(f"{count:5} members: {found[-1]} MiB", flush=True)


assert resource  # `memory` asks a child process for it
if __name__ == "__main__":
    main(str(__doc__), sphere, plane, callback, memory)
