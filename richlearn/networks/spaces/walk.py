"""One forward pass, watched: which operation takes which tensors, and what of the units survives it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from richlearn.networks.spaces.ledger import FIXED, Ledger, Wire

_QUERIES = {
    *("dim", "size", "numel", "stride", "ndim", "shape", "dtype", "device", "layout", "requires_grad", "nelement", "ndimension"),
    *("element_size", "itemsize", "get_device", "grad", "grad_fn", "names", "__len__", "__hash__", "__repr__", "__format__", "data_ptr"),
    *("zeros_like", "new_zeros", "ones_like", "new_ones"),
}
_STATISTICS = ("batch_norm", "instance_norm")  # refuse a single sample, update buffers: their values are of no interest here

Handler = Callable[["Walk", "Call"], "Wire | list[Wire]"]
OPERATIONS: dict[str, Handler] = {}


def operation(*names: str) -> Callable[[Handler], Handler]:
    """Register what is known of the torch functions and tensor methods of these names."""

    def register(handler: Handler) -> Handler:
        OPERATIONS.update(dict.fromkeys(names, handler))
        return handler

    return register


class Stop(Exception):
    """The walk cannot say what the network computes."""


def tensors(values: Any) -> Iterator[Tensor]:
    """All tensors inside nested lists, tuples and dicts."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        yield from tensors(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors(value)


def _plain_name(func: Callable) -> str:
    """`relu` for `torch.relu`, `Tensor.relu_` and `F.relu`; an operator of another origin keeps that in its name."""
    name = getattr(func, "__name__", str(func))
    if name == "__get__":  # an attribute of a tensor
        return func.__self__.__name__  # type: ignore[attr-defined]
    origin = getattr(func, "__module__", None) or "torch"
    if origin.split(".")[0] != "torch" or origin.startswith("torch._ops"):
        return f"{origin}.{name}"
    return name if name.startswith("__") else name.rstrip("_")


class Call:
    """One call of a torch function: its plain name, arguments and result."""

    def __init__(self, func: Callable, args: tuple, kwargs: dict[str, Any]) -> None:
        self.func, self.args, self.kwargs = func, args, kwargs
        self.name = _plain_name(func)
        self.result: Any = None

    def run(self) -> None:
        """Compute the result."""
        if self.name in _STATISTICS:
            self.result = (self.args or tuple(self.kwargs.values()))[0].clone()
        else:
            self.result = self.func(*self.args, **self.kwargs)

    def get(self, position: int, name: str, default: Any = None) -> Any:
        """An argument, given by place or by name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    @property
    def out(self) -> Tensor:
        """The first tensor of the result."""
        return next(tensors(self.result))

    @property
    def asks(self) -> bool:
        """Whether it only asks for shape, type or place of a tensor."""
        return self.name in _QUERIES or (self.name.startswith("is_") and self.name != "is_nonzero")


class Walk(TorchFunctionMode):
    """Runs around a forward pass and keeps a `Ledger` of units.

    Sound where it is blind: an operation that is not known spoils all units it takes; a decision that depends on
    values, a tensor whose origin was not seen, and a stretch without gradients (custom autograd functions are one) stop
    the walk.
    """

    def __init__(self, parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.names = {id(tensor): name for name, tensor in parameters.items()}
        self.buffers = {id(tensor) for tensor in buffers.values()}
        self._tags: dict[int, tuple[Tensor, Wire]] = {}

    def tag(self, tensor: Tensor, wire: Wire) -> None:
        """From now on `tensor` carries `wire` (the tensor is kept, so that its id stays its own)."""
        fits = not wire.degrees or (-wire.axis <= tensor.ndim and tensor.shape[wire.axis] == self.ledger.units(wire) * wire.copies)
        if not fits:
            self.spoil(wire, "lose their place")
        self._tags[id(tensor)] = (tensor, wire if fits else FIXED)

    def name(self, value: Any) -> str | None:
        """The name of a parameter."""
        return self.names.get(id(value)) if isinstance(value, Tensor) else None

    def carried(self, value: Any) -> Wire | None:
        """What a tensor carries; None for a constant, a parameter or no tensor at all."""
        if not isinstance(value, Tensor) or id(value) in self.names:
            return None
        if id(value) in self._tags:
            return self._tags[id(value)][1]
        if value.requires_grad:
            raise Stop("a tensor in it comes from an operation that cannot be seen")
        return None

    def spoil(self, wire: Wire, reason: str, *, shift: bool = True) -> None:
        """The units that `wire` carries are seen."""
        self.ledger.spoil((space for space, _ in wire.degrees), reason, shift=shift)

    def unknown(self, call: Call) -> Wire:
        """What an operation does that is not known: all units and parameters it takes are seen."""
        for tensor in tensors((call.args, call.kwargs)):
            if name := self.name(tensor):
                self.ledger.unusable.setdefault(name, f"share a weight with `{call.name}`")
            elif wire := self.carried(tensor):
                self.spoil(wire, f"reach `{call.name}`")
        return FIXED

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Let the function run, and follow the units through it."""
        call = Call(func, args, kwargs or {})
        call.run()
        taken = list(tensors((args, call.kwargs)))
        if not call.asks and any(self.name(tensor) or self.carried(tensor) for tensor in taken):
            self._follow(call)
        return call.result

    def _follow(self, call: Call) -> None:
        if not torch.is_grad_enabled() and any(t.requires_grad for t in tensors((call.args, call.kwargs))):
            raise Stop(f"its gradients are not those of what it computes (`{call.name}` without gradient, or in a function of its own)")
        results = list(tensors(call.result))
        if "out" in call.kwargs or (not results and call.result is not None):
            raise Stop(f"a decision in it depends on values (`{call.name}`)")
        if not results:  # `x[i] = y` and the like change their first argument
            self.unknown(call)
            results = list(tensors(call.args))[:1]
            wires: Wire | list[Wire] = FIXED
        else:
            wires = OPERATIONS.get(call.name, Walk.unknown)(self, call)
        given = wires if isinstance(wires, list) else [wires]
        for i, tensor in enumerate(results):
            if id(tensor) not in self.names:
                self.tag(tensor, given[i] if i < len(given) else FIXED)
