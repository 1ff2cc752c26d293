"""Tasks of labels: one by one, in a stack and in a plain loop of torch give the same; that loop has its scales in the forward pass."""

import copy
import math
import warnings
from collections.abc import Iterable
from functools import partial
from typing import Any

import pytest
import torch
from lab import fit, trainer
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from richlearn.networks import MLP, Transformer
from richlearn.schemes import EmbeddingScale, RelativeScale
from richlearn.tasks import CROSS_ENTROPY, MSE, ModularArithmetic, RandomHierarchy, Split
from richlearn.training import Member, NetworkModule, Optimizer, Schedule, StackedModule, check_times

STEPS, EPOCH, WIDTH = 200, 4, 20  # 50 strings in batches of 16: three, and one of 2
RATE = 0.1 * WIDTH  # of N(0, 1) weights
KINDS = [(0.3, 1.0), (1.0, 1.0), (10.0, 1.0)]  # α, share of the rate
PLAIN, CHECKS = Optimizer("sgd", lr=RATE, momentum=0.9), check_times(120, 5)
UNEVEN = [(0.3, 1.0), (1.0, 0.5), (10.0, 1.0), (0.5, 0.25), (2.0, 0.02)]  # fit at unlike times, or never
HIERARCHY = Optimizer("sgd", lr=RATE, momentum=0.9, schedule=Schedule("cosine", steps=STEPS, period=0.8, every=EPOCH))
SCALES = [(0.5, 0.75), (1.0, 1.0), (3.0, 1.5)]  # α, τ
LR, DECAY, WARM_UP = 2e-3, 0.3, 9  # a larger rate amplifies rounding a millionfold on these few equations
COMMON: dict[str, Any] = {"lr": LR, "weight_decay": DECAY, "schedule": Schedule("warmup", warmup=WARM_UP)}
OPTIMIZERS = {  # torch's, and ours
    "sgd": (partial(torch.optim.SGD, momentum=0.9), Optimizer("sgd", momentum=0.9, **COMMON)),
    "adam": (partial(torch.optim.Adam, betas=(0.9, 0.98)), Optimizer("adam", betas=(0.9, 0.98), **COMMON)),
    "adamw": (partial(torch.optim.AdamW, betas=(0.9, 0.98)), Optimizer("adamw", betas=(0.9, 0.98), **COMMON)),
}
ARITHMETIC = OPTIMIZERS["adamw"][1]
# Softmax does not see what the keys' bias adds to all scores: its gradient is rounding noise, which Adam scales up to whole steps.
UNSEEN = "blocks.0.key.bias"


def hierarchy():
    return RandomHierarchy(4, 4, 3, 2, 2, seed=1, train_size=50, test_size=40, batch_size=16, dtype=torch.float64)


def arithmetic():
    return ModularArithmetic(prime=7, seed=2, batch_size=8, dtype=torch.float64)


def perceptrons(task, kinds):
    """Initialised networks and their members, for each of `kinds` (α, share of the rate)."""
    nets, described = [], []
    for index, (alpha, share) in enumerate(kinds):
        nets.append(MLP(task.in_features, task.out_features, width=WIDTH, bias=False).double())
        factors = RelativeScale(alpha, base="mean_field").apply(nets[-1], torch.Generator().manual_seed(index), optimizer="sgd")
        described.append(Member(f"α={alpha}", share * RATE, factors))
    return nets, described


def transformers(task, optimizer="adamw", scales=SCALES):
    nets, described = [], []
    for index, (alpha, tau) in enumerate(scales):
        nets.append(Transformer(4, 7, width=16, heads=2, feed_forward=32).double())
        draws = torch.Generator().manual_seed(index)
        factors = EmbeddingScale(alpha, tau).apply(nets[-1], draws, batch=task.train.inputs, optimizer=optimizer)
        described.append(Member(f"α={alpha} τ={tau}", LR / tau**2, factors))
    return nets, described


def stack(task, optimizer, nets, described, compiled=False, cuts=()):
    return StackedModule(nets, task.loss, optimizer, described, task.train, task.order(), compiled=compiled, cuts=cuts)


def uneven(chosen: Iterable[int] = range(len(UNEVEN)), bad: Iterable[int] = ()) -> StackedModule:
    """A stack of the members `chosen` of `UNEVEN`, those in `bad` at a rate far too large; cut at `CHECKS`."""
    task = hierarchy()
    nets, described = perceptrons(task, [(alpha, 1e30 if i in bad else share) for i, (alpha, share) in enumerate(UNEVEN)])
    return stack(task, PLAIN, [nets[i] for i in chosen], [described[i] for i in chosen], cuts=CHECKS)


def alone(task, optimizer, network, member, steps=STEPS, **options):
    """The network trained as a plain LightningModule on a datamodule."""
    module = NetworkModule(copy.deepcopy(network), task.loss, optimizer, member)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer(steps, use_distributed_sampler=False, **options).fit(module, datamodule=task)
    return dict(module.network.named_parameters())


def apart(found, expected):
    """Largest difference of a parameter, relative to its largest entry; shapes and names must agree."""
    assert found.keys() == expected.keys()
    pairs = [(found[n].detach(), value.detach()) for n, value in expected.items() if n != UNSEEN]
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)


def _raw(network: nn.Module, scales: dict[str, float]) -> dict[str, torch.Tensor]:
    """V of W = cV, to be trained."""
    return {n: nn.Parameter(p.detach() / scales.get(n, 1.0)) for n, p in network.named_parameters()}


def _epochwise(task, network):
    """The hierarchy experiments' own form: N(0, 1) weights, Vx/sqrt(fan-in), readout Vᵀh/width, one rate; torch's cosine by epoch."""
    fans = [task.in_features**-0.5, WIDTH**-0.5, WIDTH**-0.5, 1 / WIDTH]
    scales = {f"layers.{2 * i}.weight": scale for i, scale in enumerate(fans)}
    raw, order = _raw(network, scales), task.order()
    stepper = torch.optim.SGD([{"params": [value]} for value in raw.values()], lr=RATE, momentum=0.9)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(stepper, T_max=round(0.8 * STEPS / EPOCH))
    for step in range(STEPS):
        hidden = task.train.inputs[order.indices(step)]
        for weight in list(raw.values())[:-1]:
            hidden = torch.relu(hidden @ weight.T / hidden.shape[1] ** 0.5)
        loss = F.cross_entropy(hidden @ raw["layers.6.weight"].T / WIDTH, task.train.targets[order.indices(step)])
        stepper.zero_grad()
        loss.backward()
        stepper.step()
        if step % EPOCH == EPOCH - 1:
            cosine.step()
    return {name: scales[name] * value.detach() for name, value in raw.items()}


def _multiplied(task, network, tau, name="adamw", steps=STEPS):
    """A plain readout whose logits are multiplied by τ, one rate lr/τ² for all."""
    scales = {"head.weight": tau, "head.bias": tau}
    raw, order = _raw(network, scales), task.order()
    kind, _ = OPTIMIZERS[name]
    stepper = kind(raw.values(), lr=LR / tau**2, weight_decay=DECAY)
    warm = torch.optim.lr_scheduler.LinearLR(stepper, 1 / (WARM_UP + 1), total_iters=WARM_UP)
    for step in range(steps):
        chosen = order.indices(step)
        loss = F.cross_entropy(tau * functional_call(network, raw, (task.train.inputs[chosen],)), task.train.targets[chosen])
        stepper.zero_grad()
        loss.backward()
        stepper.step()
        warm.step()
    return {name: scales.get(name, 1.0) * value.detach() for name, value in raw.items()}


def _module(task, optimizer, nets, described, steps=STEPS, **options):
    module = stack(task, optimizer, nets, described, **options)
    fit(module, steps)
    return module


def _logits(network, parameters, task):
    return functional_call(network, parameters, (task.test.inputs,))


# ---- the random hierarchy model --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def strings():
    """A task, its networks and members, and the stack after training."""
    task = hierarchy()
    nets, described = perceptrons(task, KINDS)
    return task, nets, described, _module(task, HIERARCHY, nets, described, cuts=[10, 75])


@pytest.mark.parametrize("index", range(len(KINDS)))
def test_a_stack_on_strings_is_the_networks_alone(strings, index):
    task, nets, described, module = strings
    assert apart(module.member_state(index), alone(task, HIERARCHY, nets[index], described[index])) < 1e-10


@pytest.mark.parametrize("index", range(len(KINDS)))
def test_multipliers_follow_the_mean_field_network(strings, index):
    task, nets, _, module = strings
    assert apart(module.member_state(index), _epochwise(task, nets[index])) < 1e-10
    assert apart(module.member_state(index), dict(nets[index].named_parameters())) > 0.01


def test_a_compiled_stack_on_strings_is_the_eager_one(strings):
    task, nets, described, module = strings
    compiled = _module(task, HIERARCHY, nets, described, compiled=True)
    assert compiled.burst.compiled
    assert max(apart(compiled.member_state(i), module.member_state(i)) for i in range(len(nets))) < 1e-10


# ---- modular arithmetic ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def equations():
    task = arithmetic()
    nets, described = transformers(task)
    return task, nets, described, _module(task, ARITHMETIC, nets, described)


@pytest.mark.parametrize("index", range(len(SCALES)))
def test_a_stack_of_transformers_is_the_networks_alone(equations, index):
    task, nets, described, module = equations
    found, expected = module.member_state(index), alone(task, ARITHMETIC, nets[index], described[index])
    assert apart(found, expected) < 1e-10
    torch.testing.assert_close(_logits(nets[index], found, task), _logits(nets[index], expected, task), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("index", range(len(SCALES)))
def test_multipliers_follow_logits_times_tau(equations, index):
    task, nets, _, module = equations
    found, expected = module.member_state(index), _multiplied(task, nets[index], SCALES[index][1])
    assert apart(found, expected) < 1e-10
    torch.testing.assert_close(_logits(nets[index], found, task), _logits(nets[index], expected, task), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_multipliers_follow_logits_times_tau_under_other_optimisers(name):
    task = arithmetic()
    nets, described = transformers(task, name, [(2.0, 0.5)])
    found = _module(task, OPTIMIZERS[name][1], nets, described, 60).member_state(0)
    assert apart(found, _multiplied(task, nets[0], 0.5, name, 60)) < 1e-10


@pytest.mark.parametrize("index", range(len(SCALES)))
def test_decoupled_decay_of_an_update_is_that_of_the_plain_readout(index):
    nets, described = transformers(arithmetic())
    groups = ARITHMETIC.groups(nets[index], described[index].multipliers, described[index].lr)
    decays = [group["lr"] * group["weight_decay"] for group in groups]
    assert decays == pytest.approx([LR / SCALES[index][1] ** 2 * DECAY] * len(groups), rel=1e-14)


# ---- the loss of labels ----------------------------------------------------------------------------------------------

LABELS = torch.tensor([2, 0, 1, 1, 2])
OUTPUTS = torch.randn(4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_cross_entropy_is_torchs():
    assert CROSS_ENTROPY(OUTPUTS[0], LABELS).item() == pytest.approx(F.cross_entropy(OUTPUTS[0], LABELS).item(), rel=1e-14)
    expected = F.cross_entropy(OUTPUTS[0], LABELS, reduction="none")
    torch.testing.assert_close(CROSS_ENTROPY.per_sample(OUTPUTS[0], LABELS), expected, rtol=1e-14, atol=0)


def test_cross_entropy_of_a_stack_is_torchs_of_each_member():
    expected = torch.stack([F.cross_entropy(output, LABELS) for output in OUTPUTS])
    torch.testing.assert_close(CROSS_ENTROPY(OUTPUTS, LABELS), expected, rtol=1e-14, atol=0)


def test_cross_entropy_of_large_logits_is_finite():
    logits = torch.tensor([[1e4, -1e4, 0.0]], dtype=torch.float64)
    assert CROSS_ENTROPY(logits, torch.tensor([1])).item() == 2e4


def test_answers_are_right_where_the_largest_logit_is():
    logits = torch.tensor([[[3.0, 1.0], [0.0, 2.0]], [[1.0, 4.0], [5.0, 2.0]]])
    assert CROSS_ENTROPY.right is not None
    assert CROSS_ENTROPY.right(logits, torch.tensor([0, 1])).tolist() == [[True, True], [False, False]]
    assert CROSS_ENTROPY.right(logits[0], torch.tensor([1, 1])).tolist() == [False, True]


def test_only_classifications_have_answers():
    assert (CROSS_ENTROPY.classifies, MSE.classifies) == (True, False)


@pytest.mark.parametrize("classes", [2, 4, 5])
def test_the_loss_of_the_zero_predictor_is_the_logarithm_of_the_classes(classes):
    assert RandomHierarchy(4, classes, 3, 2, 2, train_size=30, test_size=20).zero_loss() == pytest.approx(math.log(classes), rel=1e-14)


@pytest.mark.parametrize("build", [hierarchy, arithmetic])
def test_accuracy_and_loss_of_a_stack_are_those_of_the_networks(build):
    task = build()
    nets, described = perceptrons(task, KINDS) if build is hierarchy else transformers(task)
    found = stack(task, HIERARCHY, nets, described).evaluate(task.test)
    outputs = [net(task.test.inputs).detach() for net in nets]
    assert found["loss"].tolist() == pytest.approx([float(F.cross_entropy(out, task.test.targets)) for out in outputs], rel=1e-12)
    assert found["accuracy"].tolist() == [float((out.argmax(-1) == task.test.targets).sum()) / len(out) for out in outputs]


def test_adamw_without_decay_moves_a_network_on_labels():
    task = hierarchy()
    (net,), _ = perceptrons(task, [(1.0, 1.0)])
    moved = alone(task, Optimizer("adamw", lr=1e-2, weight_decay=0.0), net, Member(), 3)
    assert all(float((value - net.get_parameter(name)).detach().abs().max()) > 1e-3 for name, value in moved.items())


def test_labels_stay_whole_numbers_in_a_network_of_any_precision():
    split = Split(torch.zeros(3, 2), torch.tensor([0, 1, 2])).like(torch.zeros(1, dtype=torch.float64))
    assert (split.inputs.dtype, split.targets.dtype) == (torch.float64, torch.int64)
