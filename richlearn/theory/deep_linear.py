"""Linear networks of any depth: isotropic weights, conserved matrices, tangent kernels and implicit bias."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from richlearn.errors import ParameterError
from richlearn.theory._arrays import Array, ArrayLike, array_function, finite, not_negative, number, together, whole
from richlearn.theory._constrained import positive_root, solutions, vector
from richlearn.theory._isotropic import isotropic_layers, isotropic_pair, per_layer
from richlearn.theory._linear import transposed

__all__ = [
    "deep_bias_minimiser",
    "deep_bias_potential",
    "deep_conserved",
    "deep_kernel",
    "deep_tangent_matrix",
    "isotropic_layers",
    "isotropic_pair",
    "isotropic_tangent_matrix",
    "readout_norm",
]

_OPPOSED = 1e-14  # 1 + cos up to which two vectors point in opposite directions


def _layers(weights: Sequence[ArrayLike]) -> list[np.ndarray]:
    found = [finite("weights", weight, "out in") for weight in weights]
    shapes = [weight.shape for weight in found]
    if not found or any(after[-1] != before[-2] for before, after in pairwise(shapes)):
        raise ParameterError(f"`weights` must be one or more matrices (n_out, n_in), each as wide as the one before is high, got {shapes}")
    together("the leading axes of `weights`", *(weight.sum((-2, -1)) for weight in found))
    return found


def _kron(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """left ⊗ right over leading axes."""
    product = left[..., :, None, :, None] * right[..., None, :, None, :]
    return product.reshape(*product.shape[:-4], left.shape[-2] * right.shape[-2], left.shape[-1] * right.shape[-1])


def _sides(weights: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each layer, W_D…W_{l+1} and W_{l−1}…W_1."""
    after, before = [np.eye(weights[-1].shape[-2])], [np.eye(weights[0].shape[-1])]
    for weight in reversed(weights[1:]):
        after.append(after[-1] @ weight)
    for weight in weights[:-1]:
        before.append(weight @ before[-1])
    return list(zip(reversed(after), before, strict=True))


@array_function
def deep_conserved(weights: Sequence[ArrayLike], rates: ArrayLike | None = None) -> list:
    """Δ_l = W_{l+1}ᵀW_{l+1}/η_{l+1} − W_lW_lᵀ/η_l of every hidden layer, constant under gradient flow of any loss.

    Kunin et al. 2024, section 4 (there, with two layers, times η_aη_w).

    Args:
        weights: W_1 … W_D from the first layer to the last, each (…, n_out, n_in).
        rates: η_1 … η_D, (D,); 1 if absent.

    Returns:
        Δ_1 … Δ_{D−1}, each (…, n_l, n_l).

    Raises:
        ParameterError: the layers do not fit each other, or there is not one positive rate a layer.
    """
    layers = _layers(weights)
    scaled = [weight / np.sqrt(rate) for weight, rate in zip(layers, per_layer(rates, len(layers)), strict=True)]
    return [transposed(after) @ after - before @ transposed(before) for before, after in pairwise(scaled)]


@array_function
def deep_tangent_matrix(weights: Sequence[ArrayLike], rates: ArrayLike | None = None) -> Array:
    """M of vec(β̇) = −M vec(XᵀP), β = (W_D…W_1)ᵀ, P = Xβ − Y, where vec stacks columns: entry (i, o) of β at o·d + i.

    M = Σ_l η_l (B_lB_lᵀ) ⊗ (C_lᵀC_l), B_l = W_D…W_{l+1}, C_l = W_{l−1}…W_1; with two layers (η_w AᵀA) ⊗ I + I ⊗ (η_a WᵀW).
    Kunin et al. 2024, section 4; arguments and errors as in `deep_conserved`.

    Returns:
        M, (…, c·d, c·d).
    """
    layers = _layers(weights)
    parts = zip(per_layer(rates, len(layers)), _sides(layers), strict=True)
    return np.asarray(sum(rate * _kron(after @ transposed(after), transposed(before) @ before) for rate, (after, before) in parts))


@array_function
def deep_kernel(weights: Sequence[ArrayLike], x: ArrayLike, rates: ArrayLike | None = None) -> Array:
    """Neural tangent kernel of f(x) = W_D…W_1x: K = Σ_l η_l (XC_lᵀC_lXᵀ) ⊗ (B_lB_lᵀ), row = sample·c + output.

    Kunin et al. 2024, section 4, which puts the outputs first. B_l, C_l as in `deep_tangent_matrix`; arguments and errors as in
    `deep_conserved`.

    Args:
        x: inputs, (n, d).

    Returns:
        K, (…, n·c, n·c), as `richlearn.kernels.empirical_ntk` gives with `outputs="full"`.

    >>> deep_kernel([[[1.0, 2.0]], [[3.0]]], [[1.0, 0.0], [0.0, 1.0]]).tolist()  # a²XXᵀ + XwwᵀXᵀ
    [[10.0, 2.0], [2.0, 13.0]]
    """
    layers, inputs = _layers(weights), finite("x", x, "n d")
    if inputs.ndim != 2 or inputs.shape[1] != layers[0].shape[-1]:
        raise ParameterError(f"`x` must have shape (n, {layers[0].shape[-1]}), got {inputs.shape}")
    kernel = 0.0
    for rate, (after, before) in zip(per_layer(rates, len(layers)), _sides(layers), strict=True):
        seen = inputs @ transposed(before)
        kernel = kernel + rate * _kron(seen @ transposed(seen), after @ transposed(after))
    return np.asarray(kernel)


@array_function
def isotropic_tangent_matrix(a_norm: ArrayLike, direction: ArrayLike, epsilon: ArrayLike, depth: int) -> Array:
    """M = (‖a‖² + ε)^L I + L‖a‖²(‖a‖² + ε)^{L−1} β̂β̂ᵀ of `isotropic_layers` with one output and rates 1: β̇ = −M Xᵀρ.

    ‖β‖ = ‖a‖(‖a‖² + ε)^{L/2}, so that M closes in β. Kunin et al. 2024, section 4.

    Args:
        a_norm: ‖a‖, (…).
        direction: β̂ or any positive multiple of it, (…, d); where ‖a‖ = 0 it may be 0.
        epsilon: ε ≥ 0, (…).
        depth: L ≥ 1 hidden layers.

    Returns:
        M, (…, d, d).

    Raises:
        ParameterError: a value is negative or not finite, or the direction is 0 though ‖a‖ is not.

    >>> isotropic_tangent_matrix(2.0, [0.0, 3.0], 1.0, 2).tolist()
    [[25.0, 0.0], [0.0, 65.0]]
    """
    towards, depth = finite("direction", direction, "d"), whole("depth", depth, 1)
    length, size, offset = together(
        "`direction` less its last axis, `a_norm` and `epsilon`",
        np.linalg.norm(towards, axis=-1), not_negative("a_norm", a_norm), not_negative("epsilon", epsilon),
    )  # fmt: skip
    square = size**2
    if ((length == 0) & (square > 0)).any():
        raise ParameterError("`direction` must not be 0 where `a_norm` is positive")
    unit = towards / np.where(length > 0, length, 1.0)[..., None]
    across = (square + offset) ** depth
    along = depth * square * (square + offset) ** (depth - 1)
    return across[..., None, None] * np.eye(towards.shape[-1]) + along[..., None, None] * unit[..., :, None] * unit[..., None, :]


def _readout(size: np.ndarray, depth: int, epsilon: ArrayLike) -> np.ndarray:
    """‖a‖² of ‖β‖ = ‖a‖(‖a‖² + ε)^{L/2}, for ‖β‖ = `size`."""
    with np.errstate(divide="ignore"):
        logarithm = np.asarray(2 * np.log(size))
    return positive_root(np.repeat(np.broadcast_to(epsilon, size.shape)[..., None], depth, axis=-1), logarithm)


@array_function
def readout_norm(beta_norm: ArrayLike, depth: int, epsilon: ArrayLike = 0.0) -> Array:
    """‖a‖ of `isotropic_layers` with one output, from ‖β‖ = ‖a‖(‖a‖² + ε)^{L/2} (Kunin et al. 2024, section 4).

    Args:
        beta_norm: ‖β‖, (…).
        depth: L ≥ 1 hidden layers.
        epsilon: ε ≥ 0, (…).

    Returns:
        ‖a‖, (…).

    Raises:
        ParameterError: a value is negative or not finite, or the depth is not a whole number from 1.

    >>> round(float(readout_norm(8.0, 2)), 12)
    2.0
    """
    size, offset = together("`beta_norm` and `epsilon`", not_negative("beta_norm", beta_norm), not_negative("epsilon", epsilon))
    return np.asarray(np.sqrt(_readout(size, whole("depth", depth, 1), offset)))


@array_function
def deep_bias_potential(beta: ArrayLike, depth: int, epsilon: ArrayLike = 0.0) -> Array:
    """Ψ(β) with Ψ(0) = 0 and ∇Ψ = ‖a‖β̂, where ‖β‖ = ‖a‖(‖a‖² + ε)^{L/2}: the bias of L hidden layers.

    Ψ = ‖a‖‖β‖ − ((‖a‖² + ε)^{L/2+1} − ε^{L/2+1})/(L + 2); for ε = 0 it is (L + 1)/(L + 2)·‖β‖^{(L+2)/(L+1)}.
    Kunin et al. 2024, section 4.

    Args:
        beta: (…, d).
        depth: L ≥ 1 hidden layers.
        epsilon: ε ≥ 0 of aaᵀ − W_LW_Lᵀ = −εI, (…).

    Returns:
        Ψ, (…).

    Raises:
        ParameterError: a value is not finite, ε is negative, or the depth is not a positive integer.

    >>> float(deep_bias_potential([3.0, 4.0], 1).round(6))  # 2/3·5^(3/2)
    7.45356
    """
    point, offset, depth = finite("beta", beta, "d"), not_negative("epsilon", epsilon), whole("depth", depth, 1)
    size, offset = together("`beta` less its last axis and `epsilon`", np.linalg.norm(point, axis=-1), offset)
    square, power = _readout(size, depth, offset), depth / 2 + 1
    total = square + offset
    with np.errstate(divide="ignore"):
        rise = -np.expm1(power * np.log1p(-square / np.where(total > 0, total, 1.0)))
    return np.asarray(np.sqrt(square) * size - total**power * rise / (depth + 2))


def _stuck(beta: np.ndarray, target: np.ndarray, inputs: np.ndarray) -> bool:
    """Whether the balanced flow from `beta` stays on a line and ends at 0, before `target`."""
    sizes = float(np.linalg.norm(beta) * np.linalg.norm(target))
    pulled = inputs.T @ (inputs @ target)
    straight = float(np.linalg.norm(pulled) * np.linalg.norm(target)) - float(pulled @ target) <= _OPPOSED * float(pulled @ target)
    return sizes > 0 and straight and float(beta @ target) <= (_OPPOSED - 1) * sizes


@array_function
def deep_bias_minimiser(x: ArrayLike, y: ArrayLike, beta0: ArrayLike, depth: int, epsilon: ArrayLike = 0.0) -> Array:
    """The interpolating limit of gradient flow from `isotropic_layers`: argmin Ψ(β) − ‖a₀‖β̂₀ᵀβ subject to xβ = y.

    Ψ is `deep_bias_potential`. With g = (I − Π)‖a₀‖β̂₀, Π the projector on the row space of x: β = x⁺y + (‖a‖² + ε)^{L/2} g, where ‖a‖² is
    the root of (‖a‖² − ‖g‖²)(‖a‖² + ε)^L = ‖x⁺y‖². Kunin et al. 2024, section 4.

    Args:
        x: inputs, (n, d).
        y: targets, (n,), in the range of x.
        beta0: β at t = 0, (d,).
        depth: L ≥ 1 hidden layers.
        epsilon: ε ≥ 0 of aaᵀ − W_LW_Lᵀ = −εI.

    Returns:
        β(∞), (d,).

    Raises:
        ParameterError: shapes do not fit, a value is out of range, no β has xβ = y, or ε = 0 and the flow ends in the saddle β = 0
            (seen only where it starts there or goes straight there).

    >>> deep_bias_minimiser([[0.5, 1.0]], [1.1], [-1.0, 0.0], 1).round(4).tolist()
    [-0.5273, 1.3637]
    """
    found, depth = solutions(x, y), whole("depth", depth, 1)
    offset = number("epsilon", not_negative("epsilon", epsilon))
    start = vector("beta0", beta0, len(found.particular))
    size = np.asarray(np.linalg.norm(start))
    if offset == 0 and found.particular.any() and (size == 0 or _stuck(start, found.particular, finite("x", x))):
        raise ParameterError("`beta0` must not be 0, nor lead straight to 0, where `epsilon` is 0: β = 0 is a saddle that no flow leaves")
    kept = found.unseen(np.sqrt(_readout(size, depth, offset)) * start / (size if size > 0 else 1.0))
    base = kept @ kept + offset
    with np.errstate(divide="ignore"):
        root = positive_root(np.full(depth, base), 2 * np.log(np.linalg.norm(found.particular)))
    return found.particular + (root + base) ** (depth / 2) * kept
