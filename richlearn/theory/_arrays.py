"""Arrays in, arrays out: closed forms are evaluated by NumPy in float64 and returned as the kind that came in."""

import functools
import numbers
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor, from_numpy

from richlearn.errors import ParameterError

Array: TypeAlias = np.ndarray | Tensor
ArrayLike: TypeAlias = np.ndarray | Tensor | float | int | list | tuple


def has_tensor(value: Any) -> bool:
    """Whether `value` is a tensor, or a tuple, list or dict that holds one."""
    if isinstance(value, dict):
        value = tuple(value.values())
    return isinstance(value, Tensor) or (isinstance(value, (tuple, list)) and any(map(has_tensor, value)))


def to_numpy(value: Any) -> Any:
    """`value` with every tensor in it, at any depth of tuples, lists and dicts, as a NumPy array."""
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, dict):
        return {key: to_numpy(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        found = [to_numpy(each) for each in value]
        return type(value)(*found) if hasattr(value, "_fields") else type(value)(found)
    return value


def to_torch(value: Any) -> Any:
    """`value` with every NumPy number and array in it, at any depth of tuples, lists and dicts, as a tensor."""
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "fiub":
        return from_numpy(np.array(value))
    if isinstance(value, dict):
        return {key: to_torch(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        found = [to_torch(each) for each in value]
        return type(value)(*found) if hasattr(value, "_fields") else type(value)(found)
    return value


def array_function(function: Callable) -> Callable:
    """`function`, written for NumPy arrays, for tensors too: it gets arrays, and returns tensors where it was given any.

    Results are arrays, or tuples (named ones too), lists and dicts of them.
    """

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not has_tensor((args, kwargs)):
            return function(*args, **kwargs)
        return to_torch(function(*to_numpy(args), **to_numpy(kwargs)))

    return wrapped


def finite(name: str, value: Any, shape: str = "") -> np.ndarray:
    """`value` as a float64 array.

    Args:
        name: of the argument, for the error.
        value: a number, a (nested) list of numbers, or an array.
        shape: the axes it must end with, such as "d" or "c d"; anything may stand before them.

    Raises:
        ParameterError: it is not numeric, not finite, or has too few axes.
    """
    try:
        array = np.asarray(to_numpy(value), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"`{name}` must be numbers, got {value!r:.80}") from error
    if array.ndim < len(shape.split()):
        raise ParameterError(f"`{name}` must have shape (…, {', '.join(shape.split())}), got {array.shape}")
    if not np.isfinite(array).all():
        raise ParameterError(f"`{name}` must be finite, got {array[~np.isfinite(array)].flat[0]}")
    return array


def positive(name: str, value: Any) -> np.ndarray:
    """`value` as a float64 array of positive numbers, such as learning rates.

    Raises:
        ParameterError: an entry is not a positive, finite number.
    """
    array = finite(name, value)
    if (array <= 0).any():
        raise ParameterError(f"`{name}` must be positive, got {array[array <= 0].flat[0]:g}")
    return array


def whole(name: str, value: int, least: int) -> int:
    """`value` as an int of at least `least`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ParameterError(f"`{name}` must be an integer of at least {least}, got {value!r}")
    return int(value)


def not_negative(name: str, value: ArrayLike) -> np.ndarray:
    """`value` as a float64 array without negative entries."""
    array = finite(name, value)
    if (array < 0).any():
        raise ParameterError(f"`{name}` must not be negative, got {array.min():g}")
    return array


def together(names: str, *arrays: np.ndarray | np.floating) -> tuple[np.ndarray, ...]:
    """`arrays` broadcast against one another."""
    try:
        return np.broadcast_arrays(*arrays)
    except ValueError as error:
        raise ParameterError(f"{names} must broadcast, got shapes {', '.join(str(np.shape(each)) for each in arrays)}") from error


def number(name: str, value: Any) -> float:
    """`value` as one float."""
    array = finite(name, value)
    if array.shape:
        raise ParameterError(f"`{name}` must be a number, got shape {array.shape}")
    return float(array)
