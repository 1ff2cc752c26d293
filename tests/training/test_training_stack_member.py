"""A member of a stack is what `NetworkModule` trains alone under an ordinary Trainer."""

import copy
import warnings

import pytest
import torch
from lab import farthest, fit, members, networks, small_task, stack, trainer
from torch import nn
from torch.func import functional_call

from richlearn.networks import MLP
from richlearn.schemes import NTK, MeanField
from richlearn.training import Member, NetworkModule, Optimizer, Schedule

OPTIMIZERS = {
    "sgd": Optimizer("sgd", lr=0.1, momentum=0.9, weight_decay=0.01, schedule=Schedule("warmup", warmup=9)),
    "adamw": Optimizer("adamw", lr=0.01, weight_decay=0.1, betas=(0.9, 0.98), schedule=Schedule("cosine", steps=60)),
}


def _alone(task, optimizer, network, member, steps, **options):
    module = NetworkModule(copy.deepcopy(network), task.loss, optimizer, member)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer(steps, use_distributed_sampler=False, **options).fit(module, datamodule=task)
    return module


@pytest.mark.parametrize("batch_size", [None, 16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_member_is_the_network_trained_alone(name, batch_size):
    task, nets, described = small_task(batch_size), networks(2), members(2)
    module = stack(task, OPTIMIZERS[name], nets, described)
    fit(module, 60)
    for index in range(2):
        assert farthest(_alone(task, OPTIMIZERS[name], nets[index], described[index], 60).network, module, index) < 1e-10


def test_losses_are_those_of_the_networks_alone():
    task, nets, described = small_task(), networks(3), members(3)
    module = stack(task, OPTIMIZERS["sgd"], nets, described)
    for split in (task.train, task.test):
        expected = [float(NetworkModule(net, task.loss).evaluate(split)["loss"]) for net in nets]
        assert module.evaluate(split)["loss"].tolist() == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("count", [1, 4, 9, 10, 13])
def test_slices_give_what_members_alone_give(count):
    task, nets, described = small_task(16), networks(count), members(count)
    module = stack(task, OPTIMIZERS["adamw"], nets, described, cuts=[5])
    fit(module, 12)
    assert len(list(module.members())) == len(module.diverged_at) == len(module.evaluate(task.test)["loss"]) == count
    for index in {0, count // 2, count - 1}:
        single = stack(task, OPTIMIZERS["adamw"], nets[index : index + 1], described[index : index + 1])
        fit(single, 12)
        assert max(float((v - single.member_state(0)[n]).abs().max()) for n, v in module.member_state(index).items()) < 1e-12


@pytest.mark.parametrize("batch_size", [None, 16])
def test_where_bursts_are_cut_does_not_matter(batch_size):
    task, nets, described = small_task(batch_size), networks(5), members(5)
    whole, cut = (stack(task, OPTIMIZERS["adamw"], nets, described, cuts=cuts) for cuts in ([], [1, 2, 7, 19]))
    fit(whole, 30)
    fit(cut, 30)
    assert all(torch.equal(whole.stack[key], cut.stack[key]) for key in whole.stack)


def test_the_networks_given_are_copied():
    task, nets = small_task(), networks(2)
    before = copy.deepcopy(nets[0].state_dict())
    fit(stack(task, OPTIMIZERS["sgd"], nets, members(2)), 5)
    assert all(torch.equal(before[name], value) for name, value in nets[0].state_dict().items())


def test_members_come_as_ordinary_networks_in_order():
    task, nets, described = small_task(), networks(3), members(3)
    module = stack(task, OPTIMIZERS["sgd"], nets, described)
    for view, net, member in zip(module.members(), nets, described, strict=True):
        assert view.trial == member.trial
        assert view.rates == member.multipliers.lr
        assert torch.equal(view.network(task.test.inputs), net(task.test.inputs))


def _explicit(network, scales, task, lr, steps):
    """Full-batch SGD with momentum 0.9 on V, with W = cV in the forward pass, written out."""
    raw = {n: (p.detach() / scales.get(n, 1.0)).requires_grad_() for n, p in network.named_parameters()}
    velocity = {n: torch.zeros_like(p) for n, p in raw.items()}
    for _ in range(steps):
        output = functional_call(network, {n: p * scales.get(n, 1.0) for n, p in raw.items()}, (task.train.inputs,))
        slopes = torch.autograd.grad(nn.functional.mse_loss(output, task.train.targets), list(raw.values()))
        with torch.no_grad():
            for (name, parameter), slope in zip(raw.items(), slopes, strict=True):
                velocity[name] = 0.9 * velocity[name] + slope
                parameter -= lr * velocity[name]
    return {n: (p * scales.get(n, 1.0)).detach() for n, p in raw.items()}


@pytest.mark.parametrize("lr", [0.02, 0.2])
@pytest.mark.parametrize(("scheme", "readout"), [(NTK(), 8**-0.5), (MeanField(), 1 / 8)])
def test_parametrisations_follow_scales_in_the_forward_pass(scheme, readout, lr):
    task, optimizer = small_task(), Optimizer("sgd", lr=1.0, momentum=0.9)
    nets = [MLP(6, 1, width=8, depth=2).double() for _ in range(2)]
    factors = [scheme.apply(net, torch.Generator().manual_seed(i), optimizer="sgd") for i, net in enumerate(nets)]
    module = stack(task, optimizer, nets, [Member(f"t{i}", lr, m) for i, m in enumerate(factors)])
    fit(module, 150)
    scales = {"layers.0.weight": 6**-0.5, "layers.2.weight": 8**-0.5, "layers.4.weight": readout}
    for index, net in enumerate(nets):
        expected = _explicit(net, scales, task, lr, 150)
        assert max(float((value - module.member_state(index)[name]).abs().max()) for name, value in expected.items()) < 1e-10
        assert max(float((value - net.get_parameter(name).detach()).abs().max()) for name, value in expected.items()) > 0.01
