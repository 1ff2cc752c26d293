"""What is the same in every kernel is computed once: products of operands that do not change, such as the network's inputs."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from richlearn.kernels._factors import Factor


def _same(first: Tensor, second: Tensor) -> bool:
    alike = first.shape == second.shape and first.dtype == second.dtype and first.device == second.device
    return alike and torch.equal(first, second)


@dataclass
class KeptProducts:
    """Operands of the kernel before, and the products of those that were found equal again, in at most `limit` bytes."""

    limit: int
    _operands: dict[Hashable, list[Tensor]] = field(default_factory=dict)  # none: they change
    _products: dict[Hashable, tuple[list[float], Tensor]] = field(default_factory=dict)

    def _fits(self, *values: Tensor) -> bool:
        held = [each for operands in self._operands.values() for each in operands] + [product for _, product in self._products.values()]
        return sum(each.nbytes for each in (*held, *values)) <= self.limit

    def settled(self, key: Hashable, factor: Factor) -> Factor:
        """`factor` with the operands that are held for `key`, if its own are equal to them."""
        if key not in self._operands:
            self._operands[key] = [each.clone() for each in factor.operands] if self._fits(*factor.operands) else []
            return factor
        if not (held := self._operands[key]):
            return factor
        if all(_same(a, b) for a, b in zip(held, factor.operands, strict=True)):
            return replace(factor, operands=held, settled=True)
        self._operands[key] = []
        self._products.clear()  # known by the places of their operands, which are free now
        return factor

    def product(self, rates: list[float], numbers: list[int], left: Factor, right: Factor, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` gives for the operands `numbers` of these factors; it must not be changed."""
        if not (left.settled and right.settled):
            return compute()
        key = tuple((operand.data_ptr(), len(operand)) for each in (left, right) for operand in (each.operands[i] for i in numbers))
        if (found := self._products.get(key)) is None or found[0] != rates:
            found = rates, compute()
            if key in self._products or self._fits(found[1]):
                self._products[key] = found
        return found[1]
