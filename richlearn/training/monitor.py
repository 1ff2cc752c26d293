"""How rich the learning is, at every measurement time, for one network or a stack, the suite's or a user's own."""

import functools
import warnings
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn

from richlearn.conservation.finder import Loss, check_loss
from richlearn.errors import NotApplicable, ParameterError
from richlearn.kernels import TangentKernel
from richlearn.metrics import (
    ActivationHammingDistance,
    ConservationLaws,
    ConservedQuantity,
    EffectiveRank,
    EigenspaceOverlap,
    KernelAlignment,
    KernelDistance,
    KernelVelocity,
    ParameterDistance,
)
from richlearn.metrics._base import DistanceFromStart
from richlearn.metrics._kernel import KernelMetric
from richlearn.metrics.conserved import homogeneous_pairs
from richlearn.networks._trace import as_input, undisturbed
from richlearn.training._timed import Timed
from richlearn.training.members import HasMembers, View, views

_EIGENVECTORS = 10
_BINS = 1e20  # TensorBoard's histograms end here; they raise on values that all lie beyond


def _directions(network: nn.Module) -> list[float]:
    """‖a_k‖·w_k of every unit of the first homogeneous pair, flattened: what the 2-D trajectory figure draws."""
    pair = homogeneous_pairs(network)[0]
    named = dict(network.named_parameters())
    incoming, outgoing = named[pair.incoming].detach(), named[pair.outgoing].detach()
    return (pair.by_unit(outgoing, len(incoming)).norm(dim=(0, 2))[:, None] * incoming.flatten(1)).flatten().tolist()


@dataclass
class _Watched:
    """The metrics of one member, its rates when they were made, and those that its network cannot serve."""

    metrics: dict[str, DistanceFromStart]
    rates: Mapping[str, float]
    absent: dict[str, str] = field(default_factory=dict)

    def row(self, network: nn.Module, kernel: Tensor | None) -> dict[str, Any]:
        """The value of every metric on `network`, whose kernel is given where it has one."""
        values: dict[str, Any] = {}
        for name in [name for name in self.metrics if name not in self.absent]:
            metric = self.metrics[name]
            # Another branch may have other activations; what other metrics refuse is an argument of the caller's.
            refusals = (NotApplicable, ParameterError) if isinstance(metric, ActivationHammingDistance) else NotApplicable
            try:
                if isinstance(metric, KernelMetric) and kernel is not None:
                    metric.update_kernel(kernel)
                else:
                    metric.update(network)
                values[name] = float(metric.compute())
            except refusals as reason:
                self.absent[name] = str(reason)
                continue
            if isinstance(metric, ConservedQuantity):
                delta = metric.delta
                values |= {"delta_mean": float(delta.mean()), "delta_std": float(delta.std(correction=0)), "delta": delta.tolist()}
        return values


def _shares(layers: Mapping[str, Tensor]) -> dict[str, float]:
    """tr K_l / tr K of every layer: how much of the learning it does."""
    traces = {name: float(kernel.diagonal().double().sum()) for name, kernel in layers.items()}
    total = sum(traces.values())
    return {f"kernel_share/{name}": trace / total if total else float("nan") for name, trace in traces.items()}


def _ended(module: LightningModule, step: int) -> list[str]:
    """The members that were stopped after `step` updates."""
    return [trial for trial, at in module.stopped.items() if at == step] if isinstance(module, HasMembers) else []


class RichnessMonitor(Timed):
    """Measures kernel, Hamming and parameter distance and the conserved quantity δ; works on any LightningModule.

    `trainer.logger` gets scalars (of a stack: the mean over its members) and a histogram of δ, at true optimiser steps.
    Kernels are those of the parameters that require gradients at the start of the fit: later freezing or unfreezing does
    not change the set. Kernels and conserved quantities count in the learning rates that parameters have relative to one
    another at the start, before any schedule.

    Args:
        probe: inputs (n, …) on which kernels and patterns are taken; 256 training inputs are plenty. Kernels are traced.
        every: optimiser updates between measurements, a list of updates, or None for the end of every epoch. The start
            is always measured: it is the reference. So is the end of a member that a `LossRecorder` before it in the list of
            callbacks stops.
        directions: also record ‖a_k‖ w_k of every hidden unit.
        targets: of the probe, (n, c): also record the kernel's alignment with them.
        details: also record each layer's share of the kernel and of the changed patterns, the kernel's velocity, effective
            rank and overlap of the ten largest eigenvectors, and the drift of every conservation law.
        loss: of the training: `cross_entropy` adds the laws of a softmax behind the outputs to that drift.

    Raises:
        ParameterError: an interval below 1 or an unknown loss; at the start of the fit: the network cannot be called on `probe`.

    Attributes:
        rows: one dict per member and measurement, the columns of `table()`.

    >>> from lightning import Trainer
    >>> monitor = RichnessMonitor(probe=torch.randn(64, 10), every=100)
    >>> trainer = Trainer(callbacks=[monitor], accelerator="cpu", logger=False)  # trainer.fit(your_module); then monitor.table()
    """

    def __init__(
        self,
        probe: Tensor,
        every: int | Iterable[int] | None = None,
        *,
        directions: bool = False,
        targets: Tensor | None = None,
        details: bool = True,
        loss: Loss | None = None,
    ) -> None:
        check_loss(loss)
        if isinstance(every, int) and every < 1:
            raise ParameterError(f"`every` must be at least 1 update, got {every}")
        super().__init__(None if isinstance(every, int) or every is None else {0, *every})
        self.every = every if isinstance(every, int) else None
        self.probe, self.directions, self.targets, self.details = probe, directions, targets, details
        self.loss: Loss | None = loss
        self._engine: TangentKernel | None = None
        self._refused = ""  # why the network has no kernel
        self._watched: dict[str, _Watched] = {}
        self._references: dict[str, dict[str, Tensor]] = {}

    def state_dict(self) -> dict[str, Any]:
        """Rows, and what each member is compared with: the network at initialisation, not where a fit was resumed."""
        watched = {trial: {name: metric.reference for name, metric in each.metrics.items()} for trial, each in self._watched.items()}
        return super().state_dict() | {"references": self._references | watched}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up rows and references."""
        super().load_state_dict(state_dict)
        self._references = state_dict["references"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what cannot be measured before the first update, then measure the start."""
        if (view := next(views(pl_module), None)) is not None:
            self._check_call(view.network)
        super().on_train_start(trainer, pl_module)

    def _check_call(self, network: nn.Module) -> None:
        try:
            with undisturbed(network):
                network(as_input(network, self.probe))
        except Exception as error:  # a network may raise anything on an input that is not meant for it
            fix = "give a `probe` of inputs that it takes"
            if isinstance(error, NotImplementedError):
                fix = "give it a `forward`, or put the whole network into one child module"
            said = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}; {fix}"
            subject = f"`RichnessMonitor` cannot call `{type(network).__name__}` on its probe {tuple(self.probe.shape)}"
            raise ParameterError(f"{subject}: {said}") from error

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs, batch, batch_idx: int) -> None:
        """One of the times, or a multiple of `every`; a member that has just been stopped is measured a last time."""
        if self.every is not None and trainer.global_step % self.every == 0:
            self._visit(trainer, pl_module)
        else:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._last != trainer.global_step and (ended := _ended(pl_module, trainer.global_step)):
            with undisturbed(pl_module):
                self.measure(trainer, pl_module, trainer.global_step, only=ended)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The end of an epoch, where neither times nor an interval were given."""
        if self.every is None:
            super().on_train_epoch_end(trainer, pl_module)

    def _metrics(self, view: View, probe: Tensor) -> dict[str, DistanceFromStart]:
        """Everything that is measured of one network."""
        metrics: dict[str, DistanceFromStart] = {
            "kernel_distance": KernelDistance(probe),
            "hamming_distance": ActivationHammingDistance(probe),
            "parameter_distance": ParameterDistance(),
            "parameter_distance_relative": ParameterDistance(relative=True),
            "delta_drift": ConservedQuantity(rates=view.rates, sample_input=probe[:1]),
        }
        if self.targets is not None:
            metrics["kernel_alignment"] = KernelAlignment(probe, self.targets.to(probe.device))
        if self.details:
            metrics |= {
                "kernel_velocity": KernelVelocity(probe),
                "kernel_effective_rank": EffectiveRank(probe),
                "kernel_overlap": EigenspaceOverlap(probe, min(_EIGENVECTORS, len(probe))),
                "law_drift": ConservationLaws(rates=view.rates, sample_input=probe[:2], loss=self.loss),
            }
        return metrics

    def _watch(self, view: View) -> _Watched:
        metrics = self._metrics(view, as_input(view.network, self.probe))
        for name, reference in self._references.get(view.trial, {}).items():
            if name in metrics:
                metrics[name].reference = reference.to(next(view.network.parameters()).device)
        watched = self._watched[view.trial] = _Watched(metrics, view.rates)
        return watched

    def _visit(self, trainer: Trainer, module: LightningModule) -> None:
        """Find the laws of the mode in which the network trains, before it is measured in evaluation mode."""
        if self.details and not self._watched:
            for view in views(module):
                self._find_laws(self._watch(view), view.network)
        super()._visit(trainer, module)

    @staticmethod
    def _find_laws(watched: _Watched, network: nn.Module) -> None:
        laws = watched.metrics["law_drift"]
        assert isinstance(laws, ConservationLaws)
        try:
            laws.find(network)
        except NotApplicable as reason:
            watched.absent["law_drift"] = str(reason)

    def _kernels(self, network: nn.Module, rates: Mapping[str, float]) -> dict[str, Tensor] | None:
        """The traced kernel of each layer, or the whole under the name ""; None where the network has none, from then on."""
        if self._refused:
            return None
        try:
            engine = self._engine = self._engine or TangentKernel(network, as_input(network, self.probe), outputs="trace")
            return engine.layers(network, rates=rates) if self.details else {"": engine(network, rates=rates)}
        except ParameterError as error:
            self._engine, self._refused = None, str(error)
            warnings.warn(f"`RichnessMonitor` measures no kernels: {error}", stacklevel=2)
            return None

    def _row(self, view: View) -> dict[str, Any]:
        """What is measured of one network now."""
        watched = self._watched.get(view.trial) or self._watch(view)
        layers = self._kernels(view.network, watched.rates)
        if layers is None:
            watched.absent |= {name: self._refused for name, metric in watched.metrics.items() if isinstance(metric, KernelMetric)}
        kernel = None if layers is None else functools.reduce(torch.add, layers.values())
        row = watched.row(view.network, kernel)
        if self.details and layers is not None:
            row |= _shares(layers)
        hamming = watched.metrics["hamming_distance"]
        if self.details and "hamming_distance" in row and isinstance(hamming, ActivationHammingDistance):
            row |= {f"hamming_distance/{name}": share for name, share in hamming.per_layer().items()}
        return row

    def measure(self, trainer: Trainer, module: LightningModule, step: int, only: Collection[str] | None = None) -> None:
        """Append a row per member, or for those of the trials `only`, and log their means."""
        now = []
        for view in views(module):
            if only is not None and not (view.trial in only and all(bool(p.isfinite().all()) for p in view.network.parameters())):
                continue
            row = {"trial": view.trial, "step": step, **self._row(view)}
            if self.directions:
                row["directions"] = _directions(view.network)
            now.append(row)
        self.rows += now
        self._log(trainer, now, step)

    def _log(self, trainer: Trainer, rows: list[dict[str, Any]], step: int) -> None:
        if not rows or not trainer.loggers or not trainer.is_global_zero:
            return
        frame = pd.DataFrame(rows).drop(columns=["trial", "step", "delta", "directions"], errors="ignore")
        frame = frame.replace([float("inf"), float("-inf")], float("nan"))  # a member about to diverge shall not hide the others
        delta = [value for row in rows for value in row.get("delta", []) if abs(value) < _BINS]  # nan is not, either
        for logger in trainer.loggers:
            logger.log_metrics({f"richness/{name}": float(value) for name, value in frame.mean().items()}, step=step)
            if delta and hasattr(logger.experiment, "add_histogram"):  # type: ignore[union-attr]
                logger.experiment.add_histogram("richness/delta", torch.tensor(delta), global_step=step)  # type: ignore[union-attr]

    @property
    def not_applicable(self) -> dict[str, str]:
        """Metrics that the network cannot serve, with the reason."""
        return {name: reason for watched in self._watched.values() for name, reason in watched.absent.items()}

    def table(self) -> pd.DataFrame:
        """The rows so far: trial, step and the metrics; a metric that the network cannot serve has no column, or nan from then on."""
        return pd.DataFrame(self.rows)
