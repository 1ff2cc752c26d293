"""One description of an optimiser, carried out by `torch.optim` on one network or by tensor formulas on a stack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from richlearn.errors import ParameterError, nearest
from richlearn.schemes.multipliers import Multipliers
from richlearn.training.schedules import Schedule

Name = Literal["sgd", "adam", "adamw"]


@dataclass(frozen=True)
class Rates:
    """Learning rate, weight decay and ε of each parameter: floats of one network, or (members, 1, …) tensors of a stack."""

    lr: Sequence
    weight_decay: Sequence
    eps: Sequence


@dataclass(frozen=True)
class Optimizer:
    """What all members of a batch share; learning rates and decays of members and layers come as `Multipliers`.

    Attributes:
        name: "sgd" (gradient descent where batches are full), "adam" or "adamw".
        lr: base learning rate of a member that brings none of its own.
        weight_decay: added to the gradient (SGD, Adam) or decoupled (AdamW), as in `torch.optim`.

    Raises:
        ParameterError: an unknown name or a value out of range.
    """

    name: Name = "sgd"
    lr: float = 1e-3
    momentum: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    schedule: Schedule = field(default_factory=Schedule)

    def __post_init__(self) -> None:
        if self.name not in get_args(Name):
            raise ParameterError(f"unknown optimiser `{self.name}`; {nearest(str(self.name), get_args(Name))}")
        if not self.lr > 0:
            raise ParameterError(f"`lr` must be positive, got {self.lr}")
        if not 0 <= self.momentum < 1 or not all(0 <= beta < 1 for beta in self.betas):
            raise ParameterError(f"`momentum` and `betas` must lie in [0, 1), got {self.momentum} and {self.betas}")
        if self.weight_decay < 0 or self.eps <= 0:
            raise ParameterError(f"`weight_decay` must be ≥ 0 and `eps` > 0, got {self.weight_decay} and {self.eps}")
        if self.momentum and self.name != "sgd":
            raise ParameterError(f"`momentum` belongs to `sgd`; `{self.name}` has `betas`")

    # ---- one network -------------------------------------------------------------------------------------------------

    def groups(self, network: nn.Module, multipliers: Multipliers, lr: float | None = None) -> list[dict]:
        """Parameter groups for `torch.optim`, one for each set of equal rates: the multipliers times `lr` (default: the base rate)."""
        alike: dict[tuple[float, float, float], list[nn.Parameter]] = {}
        for name, parameter in network.named_parameters():
            factors = [kind.get(name, 1.0) for kind in (multipliers.lr, multipliers.weight_decay, multipliers.eps)]
            alike.setdefault((factors[0], factors[1], factors[2]), []).append(parameter)
        return [
            {"params": parameters, "lr": (lr or self.lr) * rate, "weight_decay": self.weight_decay * decay}
            | ({} if self.name == "sgd" else {"eps": self.eps * eps})
            for (rate, decay, eps), parameters in alike.items()
        ]

    def torch_optimizer(self, groups: list[dict]) -> torch.optim.Optimizer:
        """The `torch.optim` optimiser over `groups`; Adam's update is one fused operation, a tenth of a small network's step."""
        if self.name == "sgd":
            return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum)
        kind = torch.optim.Adam if self.name == "adam" else torch.optim.AdamW
        return kind(groups, lr=self.lr, betas=self.betas, fused=True)

    def torch_schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
        """The schedule as torch's scheduler, to be stepped once an update."""
        return torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule.factor)

    # ---- a stack -----------------------------------------------------------------------------------------------------

    @property
    def slots(self) -> int:
        """How many state tensors each parameter has: momentum, or two moments."""
        return 2 if self.name != "sgd" else int(self.momentum > 0)

    def rates(self, parameters: Mapping[str, Tensor], members: Sequence[tuple[float, Multipliers]]) -> Rates:
        """(members, 1, …) tensors of each parameter's own rates, from each member's base rate and multipliers."""

        def column(name: str, like: Tensor, values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64).to(like).reshape(-1, *(1 for _ in like.shape[1:]))

        lr, decay, eps = [], [], []
        for name, value in parameters.items():
            lr.append(column(name, value, [base * m.lr.get(name, 1.0) for base, m in members]))
            decay.append(column(name, value, [self.weight_decay * m.weight_decay.get(name, 1.0) for _, m in members]))
            eps.append(column(name, value, [self.eps * m.eps.get(name, 1.0) for _, m in members]))
        return Rates(lr, decay, eps)

    def table(self, start: int, stop: int) -> Tensor:
        """What changes from update to update, (stop − start, 3) in float64: learning-rate factor, 1 − β₁ᵗ, sqrt(1 − β₂ᵗ)."""
        updates = np.arange(start, stop) + 1.0
        first, second = (1 - beta**updates for beta in self.betas)
        return torch.from_numpy(np.stack([self.schedule.factors(start, stop), first, np.sqrt(second)], axis=1))

    def update(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor], state: Sequence[Tensor], rates: Rates, row: Tensor):
        """One update of every member, as `torch.optim` does it: (new parameters, new state), nothing in place.

        Args:
            parameters, gradients: P tensors (members, …).
            state: slots·P tensors of the same shapes, slot-major.
            rates: of each parameter.
            row: this update's row of `table`, in the parameters' dtype.
        """
        one = self._sgd if self.name == "sgd" else self._adam
        count = len(parameters)
        results = [
            one(p, g, state[i::count], rates.lr[i] * row[0], rates.weight_decay[i], rates.eps[i], row)
            for i, (p, g) in enumerate(zip(parameters, gradients, strict=True))
        ]
        new_state = [results[i][1][slot] for slot in range(self.slots) for i in range(count)]
        return [result[0] for result in results], new_state

    def _sgd(self, p: Tensor, g: Tensor, state: Sequence[Tensor], lr: Tensor, decay: Tensor, eps: Tensor, row: Tensor):
        if self.weight_decay:
            g = g + decay * p
        if not self.momentum:
            return p - lr * g, ()
        velocity = self.momentum * state[0] + g
        return p - lr * velocity, (velocity,)

    def _adam(self, p: Tensor, g: Tensor, state: Sequence[Tensor], lr: Tensor, decay: Tensor, eps: Tensor, row: Tensor):
        if self.weight_decay and self.name == "adamw":
            p = p * (1 - lr * decay)
        elif self.weight_decay:
            g = g + decay * p
        first = self.betas[0] * state[0] + (1 - self.betas[0]) * g
        second = self.betas[1] * state[1] + (1 - self.betas[1]) * g * g
        return p - (lr / row[1]) * first / (second.sqrt() / row[2] + eps), (first, second)
