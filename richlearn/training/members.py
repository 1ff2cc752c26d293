"""What callbacks see of whatever is being trained: networks with a trial's name and rates, whether one or many train at once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from lightning import LightningModule
from torch import Tensor, nn

from richlearn.schemes.multipliers import Multipliers
from richlearn.tasks.base import Split


@dataclass(frozen=True)
class Member:
    """How one trial trains: its name, base learning rate (None: the optimiser's) and multipliers."""

    trial: str = "trial"
    lr: float | None = None
    multipliers: Multipliers = field(default_factory=Multipliers)


@dataclass(frozen=True)
class View:
    """A member as it stands now; `network` is only valid until the next one is asked for.

    Attributes:
        trial: the member's name.
        network: an ordinary network with the member's present parameters.
        rates: learning-rate multipliers by parameter name; 1 where absent. Of a user's own module: the rates of its
            optimisers' parameter groups over the largest of them.
    """

    trial: str
    network: nn.Module
    rates: Mapping[str, float]


@runtime_checkable
class HasMembers(Protocol):
    """What `NetworkModule` and `StackedModule` have in common."""

    trials: list[Member]
    """All members, in order, those that have stopped included."""

    @property
    def steps_done(self) -> int:
        """Optimiser updates that each network has had."""
        ...

    def members(self) -> Iterator[View]:
        """The members that had the last update, in order: those that have diverged or were stopped before it are left out."""
        ...

    @property
    def stopped(self) -> Mapping[str, int]:
        """The members that were told to stop, with the updates that they had had."""
        ...

    def stop(self, trial: str) -> None:
        """Train the member `trial` no further: it is done, and keeps the parameters that it has now."""
        ...

    def evaluate(self, split: Split) -> dict[str, Tensor]:
        """The task's `loss` and, of a classification, `accuracy` of each member on `split`, shape (members,), float64.

        nan for members that had not the last update.
        """
        ...


def _network_of(module: LightningModule) -> nn.Module:
    """The network inside a user's LightningModule: its only child that owns all parameters and can be called, if there is one."""
    own = {id(parameter) for parameter in module.parameters()}
    able = [child for child in module.children() if getattr(child.forward, "__func__", None) is not nn.Module.forward]
    whole = [child for child in able if {id(parameter) for parameter in child.parameters()} == own]
    return whole[0] if len(whole) == 1 and own else module


def _rates(module: LightningModule, network: nn.Module) -> dict[str, float]:
    """Learning rate of each of the network's parameters that an optimiser has, before any schedule, over the largest of them."""
    try:
        optimizers = module.trainer.optimizers
    except (RuntimeError, AttributeError):  # no trainer, or Fabric in its place
        return {}
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    given = {id(parameter): group.get("initial_lr", group.get("lr")) for group in groups for parameter in group["params"]}
    rates = {name: float(given[id(each)] or 0.0) for name, each in network.named_parameters() if id(each) in given}
    largest = max(rates.values(), default=0.0)
    return {name: rate / largest for name, rate in rates.items()} if largest else {}


def views(module: LightningModule) -> Iterator[View]:
    """The members of a stack, or the one network of any other LightningModule, the suite's own or a user's."""
    if isinstance(module, HasMembers):
        yield from module.members()
    else:
        network = _network_of(module)
        yield View("network", network, _rates(module, network))
