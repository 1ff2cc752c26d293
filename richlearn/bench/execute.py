"""One batch, from its trials' content to a record: the only place that trains."""

import gc
import io
import json
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import lightning
import pandas as pd
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from richlearn.bench import environment
from richlearn.bench.build import check_prediction, network_of, optimizer_of, prediction_monitor, stopping_of, task_of
from richlearn.bench.content import canonical_json, content_hash
from richlearn.bench.folder import RunFolder
from richlearn.bench.records import Record
from richlearn.bench.trials import Batch, Trial
from richlearn.bench.verdict import outcome
from richlearn.errors import NotApplicable
from richlearn.predictions import PredictionMonitor
from richlearn.tasks.base import Task
from richlearn.training import Burst, LossRecorder, Member, NetworkModule, NetworkStepsBar, RichnessMonitor, StackedModule
from richlearn.training.burst import check_stackable
from richlearn.training.progress import Bar
from richlearn.training.times import check_times, log_times


@dataclass(frozen=True)
class Hardware:
    """Lightning's flags of a run; the number of worker processes is the runner's."""

    accelerator: str = "auto"
    device: int | None = None  # index on an accelerator, for a worker of its own
    strategy: str = "auto"
    devices: int = 1

    def flags(self) -> dict[str, Any]:
        """Arguments of `Trainer`."""
        if self.strategy == "ddp":
            from lightning.pytorch.strategies import DDPStrategy

            return {"accelerator": self.accelerator, "devices": self.devices, "strategy": DDPStrategy()}
        if self.accelerator == "cpu" or not torch.cuda.is_available():
            return {"accelerator": self.accelerator, "devices": 1}
        # Some sums on a GPU come out in another order every time; what has no other way warns.
        return {"accelerator": self.accelerator, "devices": 1 if self.device is None else [self.device], "deterministic": "warn"}


@dataclass
class _Prepared:
    """A trial that can train: its network stands initialised."""

    trial: Trial
    network: torch.nn.Module
    member: Member


@dataclass
class Executor:
    """Trains batches one after the other, keeping what is compiled.

    Attributes:
        protocol: (name, hash) that the records name.
        hardware: Lightning's flags.
        folder: where TensorBoard follows the batch in training; None: nowhere.
        bar: told of progress.
        command: the command line that the records name.
    """

    protocol: tuple[str, str]
    hardware: Hardware = Hardware()
    folder: RunFolder | None = None
    bar: Bar | None = None
    command: str = ""
    save_weights: bool = False
    _bursts: dict[str, Burst] = field(default_factory=dict)

    def __call__(self, batch: Batch) -> Record:
        """Train `batch` and return its record."""
        start, spec = time.monotonic(), json.loads(batch.trials[0].spec)
        torch.set_num_threads(spec["training"]["threads"])
        task = task_of(spec)
        prepared, refused = self._prepare(batch, task)
        rows, curves, device, compiled = [], [], "cpu", False
        for group in [prepared] if batch.stacked and prepared else [[one] for one in prepared]:
            found, curve, device, compiled = self._train(batch, group, spec, task)
            rows += found
            curves.append(curve)
        trials = pd.DataFrame([self._row(batch, trial, compiled) | values for trial, values in [*rows, *refused]])
        trials["compiled"] = compiled
        described = environment.describe(device, time.monotonic() - start, len(batch.trials), self.command)
        return Record(batch.hash, trials, pd.concat(curves) if curves else pd.DataFrame({"trial": [], "step": []}), described)

    def _prepare(self, batch: Batch, task: Task) -> tuple[list[_Prepared], list[tuple[Trial, dict[str, Any]]]]:
        """The trials that can train, and the outcome of those whose scheme cannot serve the network."""
        ready, refused = [], []
        for trial in batch.trials:
            try:
                network, multipliers = network_of(spec := json.loads(trial.spec), task)
                check_prediction(spec, task, network, multipliers)
            except NotApplicable as reason:
                refused.append((trial, {"status": "not_applicable", "reason": str(reason)}))
                continue
            ready.append(_Prepared(trial, network, Member(trial.hash, trial.lr, multipliers)))
        return ready, refused

    def _row(self, batch: Batch, trial: Trial, compiled: bool) -> dict[str, Any]:
        spec = json.loads(trial.spec)
        return {
            "trial": trial.hash,
            "cell": content_hash({key: value for key, value in spec.items() if key != "seed"}),
            "batch": batch.hash,
            "benchmark": self.protocol[0],
            "protocol_hash": self.protocol[1],
            "role": trial.role,
            "seed": trial.seed,
            "scheme": trial.row.name,
            "parameters": canonical_json(trial.row.parameters),
            "network": spec["network"]["name"],
            "task": spec["task"]["name"],
            "lr": trial.lr,
            "steps": spec["training"]["steps"],
            "precision": spec["training"]["precision"],
            "compiled": compiled,
            "reason": "",
            "spec": trial.spec,
            **({"train_size": trial.train_size} if trial.train_size is not None else {}),
        }

    # ---- one fit -----------------------------------------------------------------------------------------------------

    def _train(self, batch: Batch, group: list[_Prepared], spec: dict[str, Any], task: Task):
        """One fit: (outcome of each trial, curves, device, whether compiled)."""
        gc.collect()  # Trainer, module and callbacks of the fit before refer to each other, and hold its data and kernels
        steps, measure = spec["training"]["steps"], spec["measure"]
        measured = log_times(steps, measure["points_per_decade"])
        checks = sorted({*check_times(steps, measure["check_every"]), *measured})
        recorder = LossRecorder(task.train, task.test, checks, stopping_of(spec))
        monitor = RichnessMonitor(task.train.inputs[: measure["probe"]], measured, directions=measure["directions"], details=False)
        theory = prediction_monitor(spec, task, measured, {one.trial.hash: one.trial.lr for one in group})
        module = self._module(batch, group, spec, task, checks)
        callbacks = [recorder, monitor, *([theory] if theory else []), *([NetworkStepsBar(self.bar)] if self.bar else [])]
        trainer = self._trainer(batch, steps, callbacks)
        _fit(trainer, module, None if isinstance(module, StackedModule) else task)
        if self.save_weights and self.folder is not None and trainer.is_global_zero:
            self._save_weights(module)
        curves = _curves(recorder, monitor, theory)
        rows = [(one.trial, self._outcome(one.trial, module, recorder, curves, task)) for one in group]
        compiled = isinstance(module, StackedModule) and module.burst.compiled
        return rows, curves, _device_name(trainer), compiled

    def _module(self, batch: Batch, group: list[_Prepared], spec: dict[str, Any], task: Task, cuts: Iterable[int]) -> LightningModule:
        optimizer = optimizer_of(spec)
        if not batch.stacked:
            return NetworkModule(group[0].network, task.loss, optimizer, group[0].member)
        networks, members = [one.network for one in group], [one.member for one in group]
        check_stackable(networks[0])
        return StackedModule(
            networks,
            task.loss,
            optimizer,
            members,
            task.train,
            task.order(),
            cuts=cuts,
            burst=self._burst(spec, networks[0], task, optimizer),
        )

    def _burst(self, spec: dict[str, Any], network: torch.nn.Module, task: Task, optimizer) -> Burst:
        """The burst of this content; members of one shape share it, so that it is compiled once a process."""
        optimiser = {name: value for name, value in spec["optimizer"].items() if name != "schedule"}
        shape = [task.in_features, task.out_features, task.batch_size]
        key = canonical_json([spec["task"]["name"], shape, spec["network"], optimiser, spec["training"]["precision"]])
        if key not in self._bursts:
            self._bursts[key] = Burst(network, task.loss, optimizer, compiled=spec["training"]["compile"])
        return self._bursts[key]

    def _trainer(self, batch: Batch, steps: int, callbacks: list[Callback]) -> Trainer:
        logger: Any = False
        if self.folder is not None:
            logger = TensorBoardLogger(self.folder.in_training(batch.hash), name="", version="")
        flags = {
            "use_distributed_sampler": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        precision = json.loads(batch.trials[0].spec)["training"]["precision"]
        return Trainer(
            max_steps=steps, max_epochs=-1, logger=logger, callbacks=callbacks, precision=precision, num_sanity_val_steps=0,
            limit_val_batches=0, log_every_n_steps=1, **flags, **self.hardware.flags(),
        )  # fmt: skip

    def _outcome(self, trial: Trial, module: LightningModule, recorder: LossRecorder, curves: pd.DataFrame, task: Task) -> dict[str, Any]:
        spec = json.loads(trial.spec)
        diverged = recorder.not_finite.get(trial.hash)
        if isinstance(module, StackedModule):
            index = next(i for i, member in enumerate(module.trials) if member.trial == trial.hash)
            diverged = module.diverged_at[index] or diverged
        curve = curves[curves["trial"] == trial.hash]
        ended = module.stopped.get(trial.hash) if diverged is None else None  # type: ignore[union-attr]
        return outcome(curve, spec, task.zero_loss(), diverged) | ({} if ended is None else {"stopped_at": ended})

    def _save_weights(self, module: LightningModule) -> None:
        assert self.folder is not None
        for view in module.members():  # type: ignore[operator]
            buffer = io.BytesIO()
            torch.save({name: value.detach().cpu().clone() for name, value in view.network.state_dict().items()}, buffer)
            self.folder.replace(self.folder.weights(view.trial), buffer.getvalue())


def _fit(trainer: Trainer, module: LightningModule, datamodule: Task | None) -> None:
    """`trainer.fit` without the advice that does not apply to in-memory data and bursts."""
    with warnings.catch_warnings():
        for text in (
            "does not have many workers",
            "isinstance\\(treespec, LeafSpec\\)",
            "GPU available but not used",
            "no `validation_step`",
        ):
            warnings.filterwarnings("ignore", f".*{text}")
        trainer.fit(module, datamodule=datamodule)


def _curves(recorder: LossRecorder, *monitors: RichnessMonitor | PredictionMonitor | None) -> pd.DataFrame:
    """Losses, richness and predictions in one table, a row per trial and step."""
    found = recorder.table()
    for table in [monitor.table() for monitor in monitors if monitor]:
        if not table.empty:
            found = found.merge(table, on=["trial", "step"], how="left")
    return found.sort_values(["trial", "step"], ignore_index=True)


def _device_name(trainer: Trainer) -> str:
    device = trainer.strategy.root_device
    kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return kind if trainer.world_size == 1 else f"{trainer.world_size}x {kind}"


def quiet() -> None:
    """Silence Lightning's banners in a run of many fits; its warnings stay."""
    import logging

    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger(lightning.__name__).setLevel(logging.WARNING)
