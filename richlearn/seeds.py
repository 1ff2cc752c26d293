"""Where randomness comes from: every stream is derived from the trial's seed and the name of the part that draws."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, *parts: str | int) -> int:
    """A 63-bit seed for the named part of a trial: equal names give equal streams, unlike names independent ones.

    >>> derive(0, "task") == derive(0, "task"), derive(0, "task") == derive(0, "network"), derive(0, "a", 1) == derive(0, "a1")
    (True, False, False)
    """
    text = "\x1f".join(map(str, ("richlearn", seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *parts: str | int) -> "torch.Generator":
    """A CPU generator seeded by `derive(seed, *parts)`; draws are made on the CPU so that they do not depend on the device."""
    import torch

    return torch.Generator().manual_seed(derive(seed, *parts))


@contextmanager
def global_stream(source: "torch.Generator") -> Iterator[None]:
    """Let code that draws from torch's global CPU stream (PyTorch's `reset_parameters`) draw from `source` instead.

    The global stream is left as it was; `source` advances by one draw.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=source)))
        yield
