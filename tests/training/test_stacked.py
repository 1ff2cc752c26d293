"""A stacked run gives what one-by-one training by plain torch gives."""

import pytest
import torch
from lab import by_hand, farthest, fit, members, networks, small_task, stack

from richlearn.training import Optimizer, Schedule

OPTIMIZERS = {
    "gd": Optimizer("sgd", lr=0.1),
    "momentum and decay": Optimizer("sgd", lr=0.1, momentum=0.9, weight_decay=0.01),
    "warm-up": Optimizer("sgd", lr=0.1, schedule=Schedule("warmup", warmup=9)),
    "cosine": Optimizer("sgd", lr=0.1, momentum=0.9, schedule=Schedule("cosine", warmup=5, steps=200)),
    "adam": Optimizer("adam", lr=0.01, weight_decay=0.01),
    "adamw": Optimizer("adamw", lr=0.01, weight_decay=0.1, betas=(0.9, 0.98), schedule=Schedule("warmup", warmup=9)),
    "adamw cosine": Optimizer("adamw", lr=0.01, weight_decay=0.1, schedule=Schedule("cosine", steps=200)),
}


@pytest.mark.parametrize("batch_size", [None, 16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_stacked_is_single(name, batch_size):
    task, optimizer, nets, described = small_task(batch_size), OPTIMIZERS[name], networks(3), members(3)
    module = stack(task, optimizer, nets, described, cuts=[7, 60])
    fit(module, 200)
    references = [by_hand(net, task, optimizer, member, 200) for net, member in zip(nets, described, strict=True)]
    assert max(farthest(reference, module, i) for i, reference in enumerate(references)) < 1e-10


@pytest.mark.parametrize("options", [{"activation": "gelu"}, {"bias": False}, {"activation": "tanh", "depth": 1}])
def test_stacked_is_single_for_every_kind_of_network(options):
    task, optimizer, nets, described = small_task(), OPTIMIZERS["gd"], networks(2, **options), members(2)
    module = stack(task, optimizer, nets, described)
    fit(module, 50)
    assert farthest(by_hand(nets[1], task, optimizer, described[1], 50), module, 1) < 1e-10


class Foreign(torch.nn.Module):
    """A user's network, without a `stacked_forward`."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = torch.nn.Linear(6, 5), torch.nn.Linear(5, 1, bias=False)

    def forward(self, x):
        return self.out(torch.relu(self.into(x)) ** 2)


def test_a_network_of_ones_own_stacks():
    task, optimizer, nets, described = small_task(), Optimizer("sgd", lr=0.1), [Foreign().double() for _ in range(2)], members(2)
    module = stack(task, optimizer, nets, described)
    fit(module, 50)
    assert farthest(by_hand(nets[1], task, optimizer, described[1], 50), module, 1) < 1e-10


def test_compiled_is_single():
    task, optimizer, nets, described = small_task(16), OPTIMIZERS["adamw"], networks(5), members(5)
    module = stack(task, optimizer, nets, described, compiled=True)
    fit(module, 100)
    assert module.burst.compiled
    references = [by_hand(n, task, optimizer, m, 100) for n, m in zip(nets, described, strict=True)]
    assert max(farthest(reference, module, i) for i, reference in enumerate(references)) < 1e-10
