"""Which piecewise-linear units of a network are active, seen where they are computed: in a module or by a function."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from richlearn.errors import NotApplicable, ParameterError
from richlearn.networks._trace import undisturbed

_ONE_KINK = {"relu", "leaky_relu", "prelu", "rrelu"}
_TWO_KINKS = {"relu6": (0.0, 6.0), "hardtanh": (-1.0, 1.0)}  # the defaults of their `min_val` and `max_val`


@dataclass(frozen=True)
class Layer:
    """What was kept of the pattern of one use of an activation. `name` of the module that computed it; `shape` of the pattern."""

    name: str
    shape: tuple[int, ...]
    kept: Tensor


def _pattern(function: str, args: tuple, kwargs: dict[str, Any]) -> Tensor | None:
    """Where a call of `function` has the larger of its slopes, its σ'; None if it is no piecewise-linear activation."""
    if function not in _ONE_KINK and function not in _TWO_KINKS:
        return None
    pre = args[0] if args else kwargs["input"]
    if function in _ONE_KINK:
        return pre > 0
    given = dict(zip(("input", "min_val", "max_val"), args, strict=False)) | kwargs if function == "hardtanh" else {}
    low, high = _TWO_KINKS[function]
    return (pre > given.get("min_val", low)) & (pre < given.get("max_val", high))


class _Recorder(TorchFunctionMode):
    """Keeps the pattern of every activation that is called while it is entered, modules' and functions' alike.

    A module of an activation calls the function, and a function that calls another is seen once: the mode is off inside.
    """

    def __init__(self, keep: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self._keep = keep
        self._running: list[str] = []
        self._uses: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        function = getattr(func, "__name__", "").removesuffix("_")  # `relu_` is `relu` in place
        if (active := _pattern(function, args, kwargs)) is not None:
            self.layers.append(Layer(self._name(function), tuple(active.shape), self._keep(active)))
        return func(*args, **kwargs)

    def _name(self, function: str) -> str:
        """The innermost module that is running, else the function; from the second use on with its number."""
        name = next(filter(None, reversed(self._running)), function)
        self._uses[name] += 1
        return name if self._uses[name] == 1 else f"{name}/{self._uses[name]}"

    @contextmanager
    def following(self, network: nn.Module) -> Iterator[None]:
        """Knows meanwhile which module of `network` is running."""

        def leave(*_: Any) -> None:  # what a hook returns would replace the module's output
            self._running.pop()

        with ExitStack() as hooks:
            for name, module in network.named_modules():
                entered = module.register_forward_pre_hook(lambda _module, _args, name=name: self._running.append(name))
                hooks.callback(entered.remove)
                hooks.callback(module.register_forward_hook(leave, always_call=True).remove)
            yield


def record(network: nn.Module, inputs: Tensor, keep: Callable[[Tensor], Tensor]) -> list[Layer]:
    """Call the network in evaluation mode; `keep` of each pattern, a bool tensor, in order of use.

    Raises:
        ParameterError: a scripted module, inside of which nothing is seen.
        NotApplicable: the network has no piecewise-linear activation (a linear network, GELU, tanh).
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise ParameterError("`network` has a scripted module, which hides its activations: give the `nn.Module` that it was made of")
    recorder = _Recorder(keep)
    with undisturbed(network), recorder.following(network), recorder:
        network(inputs)
    if not recorder.layers:
        raise NotApplicable(f"`{type(network).__name__}` has no piecewise-linear activation, so no activation patterns")
    return recorder.layers
