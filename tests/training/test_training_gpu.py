"""On a GPU members train together and their updates are replayed; it computes what a CPU does, and twice the same."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from test_training_agreement import (
    ARITHMETIC,
    CHECKS,
    HIERARCHY,
    KINDS,
    SCALES,
    STEPS,
    UNEVEN,
    apart,
    arithmetic,
    hierarchy,
    perceptrons,
    stack,
    transformers,
    uneven,
)
from torch.func import functional_call

from richlearn.training import LossRecorder, Member, NetworkModule, Optimizer, StackedModule, Stopping

ACCELERATOR = "gpu"

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore:.*deterministic", "ignore:The number of training batches"),
]


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """A Trainer's `deterministic` outlives it."""
    yield
    torch.use_deterministic_algorithms(False)


def _fit(module: LightningModule, accelerator: str, steps: int = STEPS, **options: Any) -> Trainer:
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    data = {"datamodule": options.pop("datamodule", None)}
    running = Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator=accelerator,
        devices=1,
        limit_val_batches=0,
        use_distributed_sampler=False,
        **(quiet | options),
    )
    running.fit(module, **data)
    return running


def _state(module: StackedModule, index: int) -> dict[str, torch.Tensor]:
    return {name: value.cpu().clone() for name, value in module.member_state(index).items()}


def _strings() -> StackedModule:
    task = hierarchy()
    return stack(task, HIERARCHY, *perceptrons(task, KINDS), cuts=[10, 75])


def _equations() -> StackedModule:
    task = arithmetic()
    return stack(task, ARITHMETIC, *transformers(task), cuts=[10, 75])


@pytest.fixture(scope="module", params=[_strings, _equations], ids=["strings", "equations"])
def pair(request: pytest.FixtureRequest) -> tuple[StackedModule, StackedModule]:
    """The same stack after training on the CPU and on the GPU."""
    modules = request.param(), request.param()
    _fit(modules[0], "cpu")
    _fit(modules[1], ACCELERATOR)
    return modules


@pytest.mark.parametrize("index", range(len(SCALES)))
def test_a_gpu_computes_what_a_cpu_does(pair, index):
    assert apart(_state(pair[1], index), _state(pair[0], index)) < 1e-9


def test_losses_and_accuracies_are_the_same(pair):
    task = arithmetic() if "tokens/weight" in pair[0].stack else hierarchy()
    expected, found = (module.cpu().evaluate(task.test) for module in pair)
    assert found["loss"].tolist() == pytest.approx(expected["loss"].tolist(), rel=1e-9)
    assert found["accuracy"].tolist() == expected["accuracy"].tolist()


def test_logits_of_a_transformer_do_not_see_its_keys_bias():
    task, modules = arithmetic(), (_equations(), _equations())
    network = transformers(task)[0][0]
    _fit(modules[0], "cpu")
    _fit(modules[1], ACCELERATOR)
    expected, found = (functional_call(network, _state(module, 0), (task.test.inputs,)) for module in modules)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_evaluation_on_the_gpu_is_that_on_the_cpu():
    task = hierarchy()
    expected, found = _strings().evaluate(task.test), _strings().to("cuda" if ACCELERATOR == "gpu" else "cpu").evaluate(task.test)
    assert found["loss"].tolist() == pytest.approx(expected["loss"].tolist(), rel=1e-12)
    assert found["accuracy"].tolist() == expected["accuracy"].tolist()
    assert found["loss"].device.type == "cpu"


def test_a_network_alone_is_the_member_of_a_stack():
    task, module = hierarchy(), _strings()
    nets, described = perceptrons(task, KINDS)
    single = NetworkModule(copy.deepcopy(nets[2]), task.loss, HIERARCHY, described[2])
    _fit(module, ACCELERATOR)
    _fit(single, ACCELERATOR, datamodule=task)
    assert apart({name: value.cpu() for name, value in single.network.named_parameters()}, _state(module, 2)) < 1e-9


# ---- members that are done -------------------------------------------------------------------------------------------


def _with_goal(accelerator: str, **options: Any) -> tuple[StackedModule, LossRecorder]:
    task, module = hierarchy(), uneven(**options)
    recorder = LossRecorder(task.train, task.test, CHECKS, Stopping(goals={"train_accuracy": 0.9}))
    _fit(module, accelerator, CHECKS[-1], callbacks=[recorder])
    return module, recorder


def test_members_stop_at_the_same_updates_and_leave_the_others_alone():
    (expected, rows), (found, found_rows) = _with_goal("cpu"), _with_goal(ACCELERATOR)
    assert found.stopped == expected.stopped
    assert len(found.stopped) == 2
    assert max(apart(_state(found, index), _state(expected, index)) for index in range(len(UNEVEN))) < 1e-9
    assert found_rows.table()[["trial", "step"]].equals(rows.table()[["trial", "step"]])


def test_a_member_diverges_at_the_same_update_and_alone():
    (expected, _), (found, _) = _with_goal("cpu", bad=[1]), _with_goal(ACCELERATOR, bad=[1])
    assert found.diverged_at == expected.diverged_at
    assert found.diverged_at.count(None) == len(UNEVEN) - 1
    assert max(apart(_state(found, index), _state(expected, index)) for index in (0, 2, 3, 4)) < 1e-9


def test_the_last_member_alone_is_gathered():
    task = hierarchy()
    nets, described = perceptrons(task, UNEVEN[:3])
    halted = stack(task, Optimizer("sgd", momentum=0.9), nets, described, cuts=[20])
    for one in (described[0], described[2]):
        halted.halted[described.index(one)] = 0  # as if they had stopped before the first update
    _fit(halted, ACCELERATOR, 40)
    single = stack(task, Optimizer("sgd", momentum=0.9), nets[1:2], [Member("single", described[1].lr, described[1].multipliers)])
    _fit(single, "cpu", 40)
    assert apart(_state(halted, 1), _state(single, 0)) < 1e-9
    assert torch.equal(_state(halted, 0)["layers.0.weight"], nets[0].layers[0].weight.detach())


# ---- twice the same --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", [_strings, _equations])
def test_two_deterministic_runs_are_equal_bit_for_bit(build):
    modules = build(), build()
    for module in modules:
        _fit(module, ACCELERATOR, deterministic="warn")
    assert all(torch.equal(modules[0].stack[key], modules[1].stack[key]) for key in modules[0].stack)


def test_two_deterministic_runs_of_a_network_alone_are_equal_bit_for_bit():
    task = arithmetic()
    nets, described = transformers(task)
    singles = [NetworkModule(copy.deepcopy(nets[0]), task.loss, ARITHMETIC, described[0]) for _ in range(2)]
    for single in singles:
        _fit(single, ACCELERATOR, 60, datamodule=task, deterministic="warn")
    first, second = (list(single.network.parameters()) for single in singles)
    assert all(torch.equal(p, q) for p, q in zip(first, second, strict=True))
