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
    """Operands of the kernel before, and the products of those that were found equal again, in at most `limit` bytes.

    Operands that have changed once, or did not fit, are never looked at again.
    """

    limit: int
    _operands: dict[Hashable, list[Tensor]] = field(default_factory=dict)  # none: given up
    _products: dict[Hashable, tuple[object, Tensor]] = field(default_factory=dict)

    def _fits(self, *values: Tensor) -> bool:
        held = [each for operands in self._operands.values() for each in operands] + [product for _, product in self._products.values()]
        return sum(each.nbytes for each in (*held, *values)) <= self.limit

    def settled(self, key: Hashable, factor: Factor) -> Factor:
        """`factor`, with the operands that are held for `key` and their place, if its own are equal to them."""
        if key not in self._operands:
            self._operands[key] = [each.clone() for each in factor.operands] if self._fits(*factor.operands) else []
            return factor
        if not (held := self._operands[key]):
            return factor
        if all(_same(a, b) for a, b in zip(held, factor.operands, strict=True)):
            return replace(factor, operands=held, held=(key,))
        self._products.clear()
        self._operands[key] = []
        return factor

    def product(self, numbers: list[int], given: object, left: Factor, right: Factor, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` gives for the operands `numbers` of these factors and what is `given` besides; it must not be changed."""
        if not (left.held and right.held):
            return compute()
        key = left.held, right.held, tuple(numbers)
        if (found := self._products.get(key)) is None or found[0] != given:
            found = given, compute()
            if key in self._products or self._fits(found[1]):
                self._products[key] = found
        return found[1]
