"""Divergence of some members, stopping and resuming, and what a stack refuses."""

import copy
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from lab import Halt, fit, members, networks, small_task, stack, trainer
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from richlearn.errors import NotApplicable, ParameterError, UsageError
from richlearn.networks import MLP
from richlearn.schemes import Multipliers
from richlearn.training import LossRecorder, Member, Optimizer, RichnessMonitor, Schedule

R = 8
SGD = Optimizer("sgd", lr=0.05)
ADAMW = Optimizer("adamw", lr=0.01, weight_decay=0.1, schedule=Schedule("cosine", steps=40))


def _described(bad=(), lr=1e30):
    return [Member(f"t{i}", lr if i in bad else 0.05) for i in range(R)]


def _state(module, index):
    return {name: value.clone() for name, value in module.member_state(index).items()}


def _same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


WARM = Schedule("warmup", warmup=100)


def _first_bad_by_hand(network, task, lr, steps):
    """The first update of plain gradient descent after which a parameter is not finite."""
    network = copy.deepcopy(network)
    for step in range(1, steps + 1):
        slopes = torch.autograd.grad(task.loss(network(task.train.inputs), task.train.targets), list(network.parameters()))
        with torch.no_grad():
            for parameter, slope in zip(network.parameters(), slopes, strict=True):
                parameter -= lr * WARM.factor(step - 1) * slope
        if not all(parameter.isfinite().all() for parameter in network.parameters()):
            return step
    return None


@pytest.mark.parametrize("bad", [(3,), (0, 2, 4, 6), tuple(range(R))])
@pytest.mark.parametrize(("lr", "early"), [(1e30, True), (4.0, False)])
def test_members_diverge_alone_and_at_the_exact_update(bad, lr, early):
    task, nets, optimizer = small_task(), networks(R, activation="linear"), Optimizer("sgd", lr=0.05, schedule=WARM)
    healthy, module = stack(task, optimizer, nets, _described()), stack(task, optimizer, nets, _described(bad, lr), cuts=[10])
    fit(healthy, 60)
    fit(module, 60)
    for index in range(R):
        if index not in bad:
            assert module.diverged_at[index] is None
            assert _same(_state(module, index), _state(healthy, index))
            continue
        expected = _first_bad_by_hand(nets[index], task, lr, 60)
        assert (expected <= 10) is early
        assert module.diverged_at[index] == expected


@pytest.mark.parametrize("bad", [(1,), (1, 2, 5, 7), tuple(range(R))])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_members_that_are_not_finite_from_the_start(bad, value):
    task, nets = small_task(16), networks(R)
    healthy = stack(task, SGD, nets, _described())
    broken = copy.deepcopy(nets)
    for index in bad:
        broken[index].layers[2].weight.data[0, 0] = value
    module = stack(task, SGD, broken, _described())
    fit(healthy, 20)
    fit(module, 20)
    assert module.diverged_at == [0 if index in bad else None for index in range(R)]
    assert all(_same(_state(module, index), _state(healthy, index)) for index in range(R) if index not in bad)


class _Poison(Callback):
    def __init__(self, at, indices):
        self.at, self.indices = at, indices

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.at:
            pl_module.stack["layers/2/weight"].data[list(self.indices), 0, 0] = torch.nan


@pytest.mark.parametrize("bad", [(6,), (0, 1, 2, 3), tuple(range(R))])
def test_members_spoilt_late(bad):
    task, nets = small_task(), networks(R)
    healthy, module = (stack(task, ADAMW, nets, _described(), cuts=[30]) for _ in range(2))
    fit(healthy, 40)
    fit(module, 40, callbacks=[_Poison(30, bad)])
    assert module.diverged_at == [30 if index in bad else None for index in range(R)]
    assert all(_same(_state(module, index), _state(healthy, index)) for index in range(R) if index not in bad)


def test_a_diverged_member_leaves_the_measurements_but_not_the_record():
    task = small_task(dtype=torch.float32)
    module = stack(task, SGD, networks(R, torch.float32), _described((2,)), cuts=[5, 10])
    recorder, monitor = LossRecorder(task.train, task.test, [0, 5, 10]), RichnessMonitor(task.train.inputs, [5, 10])
    fit(module, 10, callbacks=[recorder, monitor])
    assert recorder.not_finite == {"t2": 5}
    assert recorder.table().groupby("trial").size().to_dict() == {f"t{i}": 1 if i == 2 else 3 for i in range(R)}
    assert monitor.table().groupby("trial").size()["t2"] == 1
    assert torch.isnan(module.evaluate(task.test)["loss"]).nonzero().flatten().tolist() == [2]


def test_compiled_members_diverge_alone_and_at_the_exact_update():
    task, nets, described = small_task(), networks(R, activation="linear"), _described((0, 2, 4, 6), 4.0)
    optimizer = Optimizer("sgd", lr=0.05, schedule=WARM)
    spoilt = copy.deepcopy(nets)
    spoilt[5].layers[0].weight.data[0, 0] = torch.inf
    healthy = stack(task, optimizer, nets, _described(), compiled=True, cuts=[10])
    module = stack(task, optimizer, spoilt, described, burst=healthy.burst)
    fit(healthy, 60)
    fit(module, 60)
    assert [module.diverged_at[index] for index in (0, 2, 4, 6)] == [_first_bad_by_hand(nets[i], task, 4.0, 60) for i in (0, 2, 4, 6)]
    assert module.diverged_at[5] == 0
    assert all(_same(_state(module, index), _state(healthy, index)) for index in (1, 3, 7))


@pytest.mark.parametrize("at", [4, 21, 33])
@pytest.mark.parametrize("batch_size", [None, 16])
def test_resumed_is_uninterrupted_bit_for_bit(tmp_path, batch_size, at):
    task, nets, cuts = small_task(batch_size), networks(5), [4, 21, 33]
    whole = stack(task, ADAMW, nets, members(5), cuts=cuts)
    fit(whole, 40)
    fit(stack(task, ADAMW, nets, members(5), cuts=cuts), 40, callbacks=[Halt(at, tmp_path / "c.ckpt")])
    resumed = stack(task, ADAMW, networks(5, activation="relu"), members(5), cuts=cuts)
    again = trainer(40)
    again.fit(resumed, ckpt_path=tmp_path / "c.ckpt", weights_only=True)
    assert again.global_step == resumed.steps_done == 40
    assert all(torch.equal(whole.stack[key], resumed.stack[key]) for key in whole.stack)


def test_resumed_measurements_still_compare_with_initialisation(tmp_path):
    task, times = small_task(), [0, 10, 20, 40]
    whole, stopped, resumed = ([RichnessMonitor(task.train.inputs, times), LossRecorder(task.train, task.test, times)] for _ in range(3))
    fit(stack(task, ADAMW, networks(2), members(2), cuts=times), 40, callbacks=whole)
    fit(stack(task, ADAMW, networks(2), members(2), cuts=times), 40, callbacks=[*stopped, Halt(20, tmp_path / "c.ckpt")])
    again = trainer(40, callbacks=resumed)
    again.fit(stack(task, ADAMW, networks(2), members(2), cuts=times), ckpt_path=tmp_path / "c.ckpt", weights_only=True)
    for found, expected in zip(resumed, whole, strict=True):
        pd.testing.assert_frame_equal(found.table(), expected.table(), check_exact=True)


def test_divergence_survives_a_checkpoint(tmp_path):
    task, nets = small_task(dtype=torch.float32), networks(R, torch.float32)
    module = stack(task, SGD, nets, _described((2,)), cuts=[10])
    fit(module, 20, callbacks=[Halt(10, tmp_path / "c.ckpt")])
    resumed = stack(task, SGD, nets, _described((2,)), cuts=[10])
    trainer(20).fit(resumed, ckpt_path=tmp_path / "c.ckpt")
    assert resumed.diverged_at == module.diverged_at
    assert resumed.diverged_at[2] is not None


def test_lightnings_own_checkpoint_callback_counts_updates(tmp_path):
    task, nets = small_task(), networks(2)
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=10, save_top_k=-1, filename="{step}")
    module = stack(task, ADAMW, nets, members(2), cuts=range(0, 40, 10))
    running = trainer(40, callbacks=[saver], enable_checkpointing=True)
    running.fit(module)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"step={step}.ckpt" for step in (10, 20, 30, 40)]
    resumed = stack(task, ADAMW, nets, members(2), cuts=range(0, 40, 10))
    trainer(40).fit(resumed, ckpt_path=tmp_path / "step=20.ckpt")
    assert all(torch.equal(module.stack[key], resumed.stack[key]) for key in module.stack)


def test_a_checkpoint_from_inside_a_burst_is_refused(tmp_path):
    task = small_task()

    class Interrupt(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch[0] == 4:
                trainer.save_checkpoint(tmp_path / "c.ckpt")
                trainer.should_stop = True

    fit(stack(task, SGD, networks(2), members(2), cuts=[4, 8]), 12, callbacks=[Interrupt()])
    with pytest.raises(RuntimeError, match="the stack stands at update 4, its loader at 8: the checkpoint was not taken between bursts"):
        trainer(12).fit(stack(task, SGD, networks(2), members(2), cuts=[4, 8]), ckpt_path=tmp_path / "c.ckpt")


def test_steps_count_updates_of_each_network():
    seen = []

    class Count(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append((trainer.global_step, pl_module.steps_done))

    running = fit(stack(small_task(), SGD, networks(3), members(3), cuts=[1, 8, 30]), 100, callbacks=[Count()])
    assert seen == [(step, step) for step in (1, 8, 30, 100)]
    assert running.global_step == 100


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(5), nn.Dropout(0.1)])
def test_networks_with_state_or_chance_are_refused(layer):
    nets = [nn.Sequential(nn.Linear(6, 5), layer, nn.Linear(5, 1)).double() for _ in range(2)]
    with pytest.raises(NotApplicable, match=rf"`Sequential` cannot be stacked: `1` \({type(layer).__name__}\) keeps state or draws"):
        stack(small_task(), SGD, nets, members(2))


def test_several_dtypes_are_refused():
    nets = [nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 1).double()) for _ in range(2)]
    with pytest.raises(NotApplicable, match="its parameters have several dtypes"):
        stack(small_task(), SGD, nets, members(2))


def test_frozen_parameters_are_refused():
    nets = networks(2)
    nets[0].layers[0].weight.requires_grad_(False)
    with pytest.raises(NotApplicable, match=r"`layers\.0\.weight` is frozen, a stack trains every parameter"):
        stack(small_task(), SGD, nets, members(2))


def test_buffers_that_differ_are_refused():
    nets = networks(2)
    for index, net in enumerate(nets):
        net.register_buffer("features", torch.full((3,), float(index)))
    with pytest.raises(NotApplicable, match=r"its buffers \['features'\] differ from member to member"):
        stack(small_task(), SGD, nets, members(2))


def test_equal_buffers_are_served():
    nets = networks(2)
    for net in nets:
        net.register_buffer("mask", torch.ones(3))
    assert fit(stack(small_task(), SGD, nets, members(2)), 3).global_step == 3


@pytest.mark.parametrize("other", [MLP(6, 1, width=9, depth=2), MLP(6, 1, width=8, depth=1), MLP(6, 1, width=8, depth=2, bias=False)])
def test_unlike_networks_are_refused(other):
    with pytest.raises(ParameterError, match="`networks` of a stack must have parameters of the same names and shapes"):
        stack(small_task(), SGD, [*networks(1), other.double()], members(2))


def test_members_and_networks_must_match():
    with pytest.raises(ParameterError, match="`members` must describe each of the `networks`: got 3 for 2"):
        stack(small_task(), SGD, networks(2), members(3))
    with pytest.raises(ParameterError, match="got 0 for 0"):
        stack(small_task(), SGD, [], [])
    with pytest.raises(ParameterError, match="`members` must have a `trial` name each"):
        stack(small_task(), SGD, networks(2), [Member(), Member(multipliers=Multipliers())])


def test_a_trainer_without_max_steps_is_refused():
    module = stack(small_task(), SGD, networks(2), members(2))
    with pytest.raises(UsageError, match=r"give its budget as `Trainer\(max_steps=…\)`"):
        fit(module, -1)


def test_several_devices_are_refused():
    module = stack(small_task(), SGD, networks(2), members(2))
    module._trainer = SimpleNamespace(max_steps=5, world_size=2)
    with pytest.raises(UsageError, match="a stack trains on one device: start one process per device"):
        module.on_fit_start()
