"""What is the same in every kernel is computed once: what operands give that do not change, such as the network's inputs."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from richlearn.kernels._factors import Factor
from richlearn.kernels._uses import Use


def _same(first: Tensor, second: Tensor) -> bool:
    alike = first.shape == second.shape and first.dtype == second.dtype and first.device == second.device
    return alike and torch.equal(first, second)


@dataclass
class Kept:
    """Operands of the kernel before, and what was made of those that were found equal again, in at most `limit` bytes.

    Operands that have changed once, or did not fit, are never looked at again.
    """

    limit: int
    _operands: dict[Hashable, list[Tensor]] = field(default_factory=dict)  # none: given up
    _made: dict[Hashable, tuple[object, Tensor]] = field(default_factory=dict)

    def _fits(self, *values: Tensor) -> bool:
        held = [each for operands in self._operands.values() for each in operands] + [made for _, made in self._made.values()]
        return sum(each.nbytes for each in (*held, *values)) <= self.limit

    def _unchanged(self, key: Hashable, operands: list[Tensor]) -> list[Tensor]:
        """What is held for `key`, if it is equal to `operands`; else none."""
        if key not in self._operands:
            self._operands[key] = [each.clone() for each in operands] if self._fits(*operands) else []
            return []
        held = self._operands[key]
        if held and not all(_same(a, b) for a, b in zip(held, operands, strict=True)):
            self._made.clear()
            self._operands[key] = held = []
        return held

    def _once(self, key: Hashable, given: object, compute: Callable[[], Tensor]) -> Tensor:
        if (found := self._made.get(key)) is None or found[0] != given:
            self._made.pop(key, None)
            found = given, compute()
            if self._fits(found[1]):
                self._made[key] = found
        return found[1]

    def settled(self, key: Hashable, factor: Factor) -> Factor:
        """`factor`, with the operands that are held for `key` and their place, if its own are equal to them."""
        held = self._unchanged(key, factor.operands)
        return replace(factor, operands=held, held=(key,)) if held else factor

    def product(self, numbers: list[int], given: object, left: Factor, right: Factor, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` gives for the operands `numbers` of these factors and what is `given` besides; it must not be changed."""
        return self._once((left.held, right.held, tuple(numbers)), given, compute) if left.held and right.held else compute()

    def patches(self, samples: tuple[str, int], form: str, index: int, use: Use, compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` makes, in some `form`, of the input that use number `index` has for these samples; it must not be changed.

        Views are not kept, they cost nothing.
        """
        if use.operand is None or use.through:
            return compute()
        key = "patches", form, *samples, index
        if not self._unchanged(key, [use.operand]):
            return compute()
        found = self._once(
            key, [(name, tuple(each) if isinstance(each, list) else each) for name, each in (use.options or {}).items()], compute
        )
        if found.untyped_storage().nbytes() != found.nbytes:
            self._made.pop(key, None)
        if key not in self._made:
            self._operands[key] = []
        return found
