"""The empirical neural tangent kernel in one call."""

from collections.abc import Mapping

import pandas as pd
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from richlearn.kernels.ntk import MEMORY, Outputs, TangentKernel


def empirical_ntk(
    network: nn.Module,
    x: Shaped[Tensor, "sample *input"],
    x2: Shaped[Tensor, "sample2 *input2"] | None = None,
    *,
    outputs: Outputs = "full",
    rates: Mapping[str, float] | None = None,
    memory: int = MEMORY,
    explain: bool = False,
) -> Float[Tensor, "row column"]:
    """Θ(x, x') = Σ_p η_p ∂f(x)/∂θ_p ∂f(x')/∂θ_p (Kunin et al. 2024, eq. 1; Jacot et al. 2018), by `TangentKernel`.

    Args:
        network: maps (n, …) to (n, c); only parameters that require gradients, or all if none does, enter the sum.
        x: n probe inputs.
        x2: n' probe inputs; `x` if absent.
        outputs: "full" keeps output pairs, row = sample·c + output; "trace" sums over equal outputs; "sum" is the kernel of
            the sum of the outputs. They give different kernel distances where c > 1: say which you use.
        rates: η_p by parameter name; 1 where absent.
        memory: bytes that the computation may use beyond the kernel itself.
        explain: print which contraction each parameter gets, with operations and memory.

    Returns:
        (n·c, n'·c) or (n, n'), in the network's dtype.

    Raises:
        ParameterError: an argument out of range, a rate of a parameter that the network does not have, or a network whose
            samples depend on one another (batch normalisation or dropout in training mode).
    """
    kernel = TangentKernel(network, x, x2, outputs=outputs, memory=memory)
    if explain:
        print(described(kernel.explain()))
    return kernel(network, rates=rates)


def layer_ntks(
    network: nn.Module,
    x: Shaped[Tensor, "sample *input"],
    x2: Shaped[Tensor, "sample2 *input2"] | None = None,
    *,
    outputs: Outputs = "full",
    rates: Mapping[str, float] | None = None,
    memory: int = MEMORY,
) -> dict[str, Tensor]:
    """K_l by layer, K = Σ_l K_l; arguments as in `empirical_ntk`. A layer is a module with parameters of its own."""
    return TangentKernel(network, x, x2, outputs=outputs, memory=memory).layers(network, rates=rates)


def estimated_ntk(
    network: nn.Module,
    x: Shaped[Tensor, "sample *input"],
    x2: Shaped[Tensor, "sample2 *input2"] | None = None,
    *,
    samples: int = 8,
    seed: int = 0,
    rates: Mapping[str, float] | None = None,
    memory: int = MEMORY,
) -> Float[Tensor, "sample sample2"]:
    """An unbiased estimate of the traced kernel: (1/m) Σ_k Θ of v_kᵀf, entries of v_k = ±1 at random (Hutchinson 1990).

    Pays where outputs are many: the cost is that of m outputs instead of c. Other arguments as in `empirical_ntk`.

    Args:
        samples: m.
        seed: of the signs.
    """
    return TangentKernel(network, x, x2, outputs="trace", samples=samples, seed=seed, memory=memory)(network, rates=rates)


def described(table: pd.DataFrame) -> str:
    """An `explain` table as text."""
    pieces = ", ".join(f"{name} {value}" for name, value in table.attrs.items())
    return f"{table.to_string(index=False, float_format=lambda value: f'{value:.3g}')}\n{pieces}"
