"""A small task and hand-written training loops: the independent references of the training tests."""

import copy

import torch
from lightning import Callback, LightningModule, Trainer

from richlearn.networks import MLP
from richlearn.schemes import Multipliers
from richlearn.seeds import generator, global_stream
from richlearn.tasks import TeacherStudent
from richlearn.training import Member, Optimizer, StackedModule


def small_task(batch_size: int | None = None, dtype: torch.dtype = torch.float64) -> TeacherStudent:
    return TeacherStudent(dimension=6, train_size=50, test_size=40, seed=3, batch_size=batch_size, dtype=dtype)


def networks(count: int, dtype: torch.dtype = torch.float64, **options) -> list[MLP]:
    with global_stream(generator(1, "lab")):
        return [MLP(6, 1, **{"width": 8, "depth": 2, **options}).to(dtype) for _ in range(count)]


def members(count: int) -> list[Member]:
    """Unlike learning rates and multipliers, so that a mix-up shows."""
    described = []
    for i in range(count):
        rates, decays = {"layers.0.weight": 0.5 + i}, {"layers.2.weight": 2.0 + i}
        described.append(Member(f"t{i}", 0.01 * (i + 1), Multipliers(lr=rates, weight_decay=decays, eps={"layers.0.bias": 3.0})))
    return described


def by_hand(network: MLP, task: TeacherStudent, optimizer: Optimizer, member: Member, steps: int) -> MLP:
    """Plain `torch.optim` in a loop, with the groups and the schedule written out here."""
    network = copy.deepcopy(network)
    groups = []
    for name, parameter in network.named_parameters():
        lr = member.lr * member.multipliers.lr.get(name, 1.0)
        decay = optimizer.weight_decay * member.multipliers.weight_decay.get(name, 1.0)
        eps = {} if optimizer.name == "sgd" else {"eps": optimizer.eps * member.multipliers.eps.get(name, 1.0)}
        groups.append({"params": [parameter], "lr": lr, "initial": lr, "weight_decay": decay, **eps})
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    extra = {"momentum": optimizer.momentum} if optimizer.name == "sgd" else {"betas": optimizer.betas}
    stepper = kinds[optimizer.name](groups, lr=1.0, **extra)
    order = task.order()
    for step in range(steps):
        chosen = order.indices(step)
        for group in stepper.param_groups:
            group["lr"] = group["initial"] * optimizer.schedule.factor(step)
        stepper.zero_grad()
        task.loss(network(task.train.inputs[chosen]), task.train.targets[chosen]).backward()
        stepper.step()
    return network


def trainer(steps: int, **options) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(max_steps=steps, max_epochs=-1, accelerator="cpu", devices=1, limit_val_batches=0, **(quiet | options))


def stack(task: TeacherStudent, optimizer: Optimizer, nets: list, described: list[Member], **options) -> StackedModule:
    return StackedModule(nets, task.loss, optimizer, described, task.train, task.order(), **({"compiled": False} | options))


def fit(module: LightningModule, steps: int, **options) -> Trainer:
    running = trainer(steps, **options)
    running.fit(module)
    return running


class Halt(Callback):
    """Saves between bursts, and stops there."""

    def __init__(self, at, path):
        self.at, self.path = at, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.at:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def farthest(network: torch.nn.Module, module: StackedModule, index: int) -> float:
    """Largest difference between a network's parameters and a member's."""
    found = module.member_state(index)
    return max(float((value.detach() - found[name]).abs().max()) for name, value in network.named_parameters())
