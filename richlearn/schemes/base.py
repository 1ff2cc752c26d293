"""What every initialisation scheme is, the suite's own and a user's."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from torch import Generator, Tensor, nn

if TYPE_CHECKING:
    from richlearn.schemes.multipliers import Multipliers


@dataclass(frozen=True)
class Truths:
    """What is known of a network after a scheme; the contract test proves it.

    Attributes:
        delta: ‖out_k‖² − ‖in_k‖² of every unit of every homogeneous pair.
        same_function_as: a scheme that gives the same function from the same generator seed, on networks whose hidden
            layers are all positively homogeneous.
    """

    delta: float | None = None
    same_function_as: "Scheme | None" = None


class Scheme(ABC):
    """Redraws or rescales the parameters of one fresh network in place.

    A subclass is a frozen dataclass whose fields are its parameters, checked on creation (`ParameterError`). The result
    depends on the network, the generator and the batch alone; torch's global stream is neither used nor moved.

    When a change alters what one of the suite's schemes draws, raise `numerics` of its entry in `richlearn.catalog`, so that
    older results count as stale; a user's own file is known by its bytes.
    """

    deterministic: ClassVar[bool] = False
    """Whether the generator does not matter."""

    @abstractmethod
    def apply(
        self, network: nn.Module, generator: Generator, *, batch: Tensor | None = None, optimizer: str | None = None
    ) -> "Multipliers":
        """Initialise `network` in place.

        Args:
            network: a freshly built network, in the dtype it shall keep.
            generator: a CPU generator, the only source of randomness.
            batch: training inputs, for schemes that look at data and for networks whose order of use only a call shows.
            optimizer: `sgd`, `adam` or `adamw`, where learning-rate multipliers differ; None means `sgd`.

        Returns:
            Factors on learning rate, weight decay and ε per parameter name.

        Raises:
            NotApplicable: the network cannot be served; the message says why.
            ParameterError: an argument that the scheme needs is absent or unknown.
        """

    def truths(self) -> Truths:
        """What is known of the result; nothing by default."""
        return Truths()
