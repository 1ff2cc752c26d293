"""How far one kernel has turned from another."""

from jaxtyping import Float
from torch import Tensor

from richlearn.errors import ParameterError


def kernel_distance(k1: Float[Tensor, "row column"], k2: Float[Tensor, "row2 column2"]) -> float:
    """S(K₁, K₂) = ½‖K₁/‖K₁‖ − K₂/‖K₂‖‖² = 1 − ⟨K₁, K₂⟩/(‖K₁‖‖K₂‖), in [0, 1] for kernels; 0 in the lazy regime.

    Kunin et al. 2024, eq. 2. The first form is evaluated, in float64: the second loses its sign near 0. Invariant to
    the scale of either kernel; nan where one of them is identically 0.

    Raises:
        ParameterError: kernels of unlike shapes, of other probes or of other `outputs`.

    >>> import torch
    >>> first, second = torch.diag(torch.tensor([1.0, 0.0])), torch.diag(torch.tensor([0.0, 1.0]))
    >>> kernel_distance(first, 3 * first), kernel_distance(first, second)
    (0.0, 1.0)
    """
    if k1.shape != k2.shape:
        raise ParameterError(f"`k1` and `k2` must be kernels of one probe and one kind, got shapes {tuple(k1.shape)} and {tuple(k2.shape)}")
    first, second = k1.double(), k2.double()
    return float(0.5 * (first / first.norm() - second / second.norm()).square().sum())
