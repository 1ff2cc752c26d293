"""Booleans eight to a byte, and how many bits are set."""

import torch
from torch import Tensor
from torch.nn.functional import pad


def pack_bits(values: Tensor) -> Tensor:
    """All entries of a bool tensor in order, eight to a uint8, the first in the lowest bit; the last byte is filled up with 0."""
    flat = values.flatten()
    octets = pad(flat.view(torch.uint8), (0, -len(flat) % 8)).view(-1, 8)
    places = torch.arange(8, dtype=torch.uint8, device=flat.device)
    return (octets << places).sum(1, dtype=torch.uint8)


def count_bits(packed: Tensor) -> Tensor:
    """The number of set bits of a uint8 tensor, an int64 scalar: pairs, nibbles and bytes are added in place of each other."""
    pairs = packed - ((packed >> 1) & 0x55)
    nibbles = (pairs & 0x33) + ((pairs >> 2) & 0x33)
    return ((nibbles + (nibbles >> 4)) & 0x0F).sum(dtype=torch.int64)
