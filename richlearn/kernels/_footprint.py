"""How many bytes operations hold at once, counted while they run: no formula knows what a network keeps."""

import weakref
from collections.abc import Callable
from typing import TypeVar

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_T = TypeVar("_T")


class Footprint(TorchDispatchMode):
    """Counts the memory of tensors that are made while it is active, those of autograd's graph and of a backward pass included.

    Attributes:
        live: bytes held now.
        peak: bytes held at once, at most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()  # storages

    @classmethod
    def _should_skip_dynamo(cls) -> bool:  # that would load the compiler, which takes seconds; compiled parts run as they were written
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self._note((args, kwargs), made=False)
        result = func(*args, **(kwargs or {}))
        self._note(result, made=True)
        self.peak = max(self.peak, self.live)
        return result

    def _note(self, values: object, *, made: bool) -> None:
        """Count the storages that are new; what came from elsewhere takes no memory here."""
        for value in tree_leaves(values):
            if isinstance(value, Tensor) and (storage := value.untyped_storage())._cdata not in self._known:
                size = storage.nbytes() if made else 0
                self._known.add(storage._cdata)
                self.live += size
                weakref.finalize(storage, self._freed, storage._cdata, size)

    def _freed(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self.live -= size


def counted(run: Callable[[], _T]) -> tuple[_T, int]:
    """What `run` gives, and the bytes that it held at most; 0 where an operation (`torch.cond`) does not run while they are counted."""
    try:
        with Footprint() as held:
            return run(), held.peak
    except Exception:  # whatever else is wrong is so again
        return run(), 0
