"""How fast the MLPs of the random hierarchy model train, against one-by-one Lightning and an ordinary torch loop.

    OMP_NUM_THREADS=1 python benchmarks/performance/hierarchy.py [planned|validated]

One core, one run, CPU time of this process, minima over repeats taken in turn; figures are milliseconds per network and update,
float32, batch 128, momentum, of the six networks that `random_hierarchy` trains together. Read ratios, not times.
"""

import time
from collections.abc import Callable

import torch
from contest import in_turn, main, table, trainer
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from richlearn.networks import MLP
from richlearn.schemes import RelativeScale
from richlearn.seeds import generator
from richlearn.tasks import RandomHierarchy
from richlearn.training import LossRecorder, Member, NetworkModule, Optimizer, Schedule, StackedModule, check_times

ALPHAS = (0.1, 0.3, 1.0, 3.0, 10.0, 100 / 3)
SIZE, BATCH, LR, MOMENTUM = 12_800, 128, 6.4, 0.9
EPOCH = SIZE // BATCH


def member(task: RandomHierarchy, alpha: float) -> tuple[MLP, Member]:
    network = MLP(task.in_features, task.out_features, width=64, depth=3, bias=False).double()
    multipliers = RelativeScale(alpha, base="mean_field").apply(network, generator(0, "network"))
    return network.float(), Member(f"α = {alpha:g}", LR, multipliers)


def optimizer(steps: int) -> Optimizer:
    return Optimizer(lr=LR, momentum=MOMENTUM, schedule=Schedule("cosine", steps=steps, period=0.8, every=EPOCH))


def stacked(task: RandomHierarchy, steps: int, burst=None, looks: tuple = ()) -> tuple[float, StackedModule]:
    """The suite's stack of six under a Trainer."""
    networks, members = zip(*(member(task, alpha) for alpha in ALPHAS), strict=True)
    module = StackedModule(networks, task.loss, optimizer(steps), members, task.train, task.order(), burst=burst, cuts=looks)
    running = trainer(steps, [LossRecorder(task.train, task.test, looks)] if looks else [])
    start = time.process_time()
    running.fit(module)
    return (time.process_time() - start) / steps / len(ALPHAS) * 1e3, module


def lightning_loop(task: RandomHierarchy, steps: int, *, collated: bool) -> float:
    """One network under a Trainer, fed by an ordinary DataLoader, or by the task's own, which gathers whole batches."""
    network, described = member(task, 1.0)
    module = NetworkModule(network, task.loss, optimizer(steps), described)
    loader = DataLoader(TensorDataset(task.train.inputs, task.train.targets), BATCH, shuffle=True) if collated else task.train_dataloader()
    running = trainer(steps)
    start = time.process_time()
    running.fit(module, loader)
    return (time.process_time() - start) / steps * 1e3


def torch_loop(task: RandomHierarchy, steps: int, looks: tuple = ()) -> float:
    """One network in a hand-written loop, the data in memory, a permutation an epoch."""
    network, _ = member(task, 1.0)
    (inputs, targets), sgd = (task.train.inputs, task.train.targets), torch.optim.SGD(network.parameters(), lr=0.1, momentum=MOMENTUM)
    start = time.process_time()
    for step in range(steps):
        if step % EPOCH == 0:
            order = torch.randperm(SIZE)
        rows = order[step % EPOCH * BATCH :][:BATCH]  # pyright: ignore[reportPossiblyUnboundVariable]
        sgd.zero_grad()
        F.cross_entropy(network(inputs[rows]), targets[rows]).backward()
        sgd.step()
        if step + 1 in looks:
            with torch.no_grad():
                for split in (task.train, task.test):
                    logits = network(split.inputs)
                    F.cross_entropy(logits, split.targets).item()
                    (logits.argmax(-1) == split.targets).double().mean().item()
    return (time.process_time() - start) / steps * 1e3


def planned(repeats: int) -> None:
    """Updates alone, as the benchmark plans them."""
    task, steps = RandomHierarchy(train_size=SIZE, batch_size=BATCH), 10 * EPOCH
    _, module = stacked(task, EPOCH)  # compiles
    contestants: dict[str, Callable[[], float]] = {
        "Lightning one by one, DataLoader": lambda: lightning_loop(task, steps, collated=True),
        "Lightning one by one, batches gathered": lambda: lightning_loop(task, steps, collated=False),
        "torch loop, data in memory": lambda: torch_loop(task, steps),
        "stack of 6, compiled": lambda: stacked(task, steps, module.burst)[0],
    }
    table(f"P = {SIZE:,}, batch {BATCH}", in_turn(contestants, repeats), "stack of 6, compiled")


def validated(repeats: int) -> None:
    """The same with a look at the training and the test set (26,214) every ten epochs."""
    task, steps = RandomHierarchy(train_size=SIZE, batch_size=BATCH), 20 * EPOCH
    looks = tuple(check_times(steps, 10 * EPOCH))
    _, module = stacked(task, EPOCH)
    contestants: dict[str, Callable[[], float]] = {
        "torch loop, data in memory": lambda: torch_loop(task, steps, looks),
        "stack of 6, compiled": lambda: stacked(task, steps, module.burst, looks)[0],
    }
    table(f"P = {SIZE:,}, batch {BATCH}, both sets looked at every ten epochs", in_turn(contestants, repeats), "stack of 6, compiled")


if __name__ == "__main__":
    main(str(__doc__), planned, validated)
