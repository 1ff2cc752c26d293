"""The empirical NTK by structure: Gram matrices of layer inputs and output gradients instead of Jacobians."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pandas as pd
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from richlearn.errors import ParameterError
from richlearn.kernels import _contract as contract
from richlearn.kernels._collect import Collector
from richlearn.kernels._factors import Factor
from richlearn.kernels._jacobian import bytes_of_one
from richlearn.kernels._kept import Kept
from richlearn.kernels._plan import Plan, Size, Unit, plan
from richlearn.kernels._request import Outputs, Request, Share, check_arguments, checked_rates, checked_values
from richlearn.kernels._survey import Survey, survey

MEMORY = 512 * 2**20
_announced: set[tuple[str, torch.Size]] = set()


def _announce(network: nn.Module, fallback: Mapping[str, str]) -> None:
    """Say that a parameter's Jacobian is taken, once for each class, name, shape and reason."""
    shapes = {name: p.shape for name, p in network.named_parameters()}
    for name, reason in sorted(fallback.items()):
        text = f"`{type(network).__name__}`: the kernel of parameter `{name}` comes from its Jacobian, which is slower: {reason}"
        if (key := (text, shapes[name])) not in _announced:
            _announced.add(key)
            warnings.warn(text, stacklevel=5)


class TangentKernel:
    """Θ(x, x') = Σ_p η_p ∂f(x)/∂θ_p ∂f(x')/∂θ_p of one network architecture on fixed probes, to be evaluated many times.

    Jacot et al. 2018; Kunin et al. 2024, eq. 1. No Jacobian is formed (Novak, Sohl-Dickstein & Schoenholz 2022, "structured
    derivatives"): a forward pass notes each use of a parameter, one batched backward pass gives the gradients G of
    the results, and each part of the kernel is the cheaper of (A Aᵀ) ∘ (G Gᵀ), summed over pairs of positions, A the
    operands, and the Gram matrix of per-sample gradients Σ_t G_t A_tᵀ. Parameters used in ways that are not covered
    get their exact Jacobian; that is announced once. The network is left as it was.

    Args:
        network: maps (n, …) to (n, c), or to (n, …), which is flattened; only parameters that require gradients, or all
            if none does, enter the sum. Taken in its present mode.
        x: n probe inputs.
        x2: n' probe inputs; `x` if absent.
        outputs: "full" keeps output pairs, row = sample·c + output; "trace" sums over equal outputs; "sum" is the kernel of
            the sum of the outputs, a third quantity. They give different kernel distances where c > 1: say which you use.
        samples: with "trace": estimate it from this many random-sign combinations of the outputs (unbiased;
            Hutchinson 1990), for networks of many outputs.
        seed: of these combinations.
        memory: bytes that the computation may use beyond the kernel itself; what is the same in every kernel is kept in them.

    Raises:
        ParameterError: an argument out of range, a scripted network, or one whose samples depend on one another (batch
            normalisation or dropout in training mode).
    """

    def __init__(
        self,
        network: nn.Module,
        x: Shaped[Tensor, "sample *input"],
        x2: Shaped[Tensor, "sample2 *input2"] | None = None,
        *,
        outputs: Outputs = "full",
        samples: int | None = None,
        seed: int = 0,
        memory: int = MEMORY,
    ) -> None:
        check_arguments(outputs, samples, memory, x, x2)
        self.x, self.x2, self.outputs, self.memory = x, x if x2 is None else x2, outputs, memory
        if isinstance(network, torch.jit.ScriptModule):
            raise ParameterError("`network` is a scripted module, which hides its operations: give the `nn.Module` that it was made of")
        if any(isinstance(p, UninitializedParameter) for p in network.parameters()):
            raise ParameterError("`network` has lazy modules without parameters yet: call it once before")
        if not (named := dict(network.named_parameters())):
            raise ParameterError(f"`{type(network).__name__}` has no parameters, so no tangent kernel")
        self._names = frozenset(name for name, p in named.items() if p.requires_grad) or frozenset(named)
        with _undisturbed(x):
            self._survey: Survey = survey(network, self._names, x)
            self._cotangents = self._choose(samples, seed)
            one = bytes_of_one(network, self._survey.fallback.keys(), x, self._cotangents)
        _announce(network, self._survey.fallback)
        like = next(iter(named.values()))
        sizes = {name: named[name].numel() for name in sorted(self._survey.fallback)}
        self._full = outputs == "full" and self._survey.outputs > 1  # of one output the two kinds are one
        size = Size(len(self.x), len(self.x2), len(self._cotangents), self._full, self._symmetric)
        self._plan: Plan = plan(self._survey, size, sizes, one, like.element_size(), memory)
        self._kept = Kept(memory - self._plan.memory)
        self._collector = Collector(self._names, self._survey, self._plan, self._kept, full=self._full)
        self._units = self._collector.units

    @property
    def _symmetric(self) -> bool:
        return self.x2 is self.x

    def _choose(self, samples: int | None, seed: int) -> Tensor:
        """The cotangents (m, c) whose kernels are summed or paired."""
        c = self._survey.outputs
        if self.outputs == "sum":
            return torch.ones(1, c)
        if samples is None:
            return torch.eye(c)
        signs = torch.randint(2, (samples, c), generator=torch.Generator().manual_seed(seed)) * 2.0 - 1.0
        return signs / samples**0.5

    @property
    def fallback(self) -> dict[str, str]:
        """Parameters whose Jacobian is taken, with the reason."""
        return dict(sorted(self._survey.fallback.items()))

    @property
    def layer_names(self) -> list[str]:
        """Names of the modules that own the parameters in the sum."""
        names = [name for group in self._survey.groups for name in [group[0].view.parameter]] + sorted(self._survey.fallback)
        return list(dict.fromkeys(_layer(name) for name in names))

    @property
    def operations(self) -> float:
        """Multiply-adds of passes and contractions, as planned."""
        return self._plan.passes + sum(unit.operations for unit in self._plan.units)

    def explain(self) -> pd.DataFrame:
        """A row a parameter: contraction chosen, positions, operations, memory; `attrs` holds the pieces and the bytes."""
        table = self._plan.table()
        p = self._plan
        table.attrs = {"cotangents at once": p.cotangents, "samples at once": p.rows, "samples a pass": p.batch, "bytes": p.memory}
        return table

    # ---- evaluation --------------------------------------------------------------------------------------------------

    def __call__(
        self, network: nn.Module, *, rates: Mapping[str, float] | None = None, values: Mapping[str, Tensor] | None = None
    ) -> Float[Tensor, "row column"]:
        """The kernel of `network`, (n·c, n'·c) or (n, n'), in its dtype.

        Args:
            network: of the architecture that this was made with.
            rates: η_p by parameter name; 1 where absent.
            values: parameters and buffers to use in place of the network's own (a member of a stack).

        Raises:
            ParameterError: a network of another architecture, rates or values that it has no place for.
        """
        given = self._checked(network, rates, values)
        kernel = self._empty(network)
        self._fill(Request(network, *given, dict.fromkeys(self._names, kernel)))
        return contract.mirror(kernel) if self._symmetric else kernel

    def layers(
        self, network: nn.Module, *, rates: Mapping[str, float] | None = None, values: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """The kernel's parts by layer, which add up to it: K = Σ_l K_l. A layer is a module with parameters of its own."""
        given = self._checked(network, rates, values)
        kernels = {name: self._empty(network) for name in self.layer_names}
        targets = {name: kernels[_layer(name)] for name in self._names if _layer(name) in kernels}
        self._fill(Request(network, *given, targets))
        return {name: contract.mirror(kernel) if self._symmetric else kernel for name, kernel in kernels.items()}

    def stack(
        self,
        network: nn.Module,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor] | None = None,
        *,
        rates: Mapping[str, float] | None = None,
    ) -> Float[Tensor, "member row column"]:
        """The kernel of every member of a stack.

        Args:
            network: gives the architecture, and the parameters and buffers that are the same for all.
            parameters: those of the members, with a leading member dimension, as `torch.func.stack_module_state` gives them.
            buffers: likewise, such as the running statistics of normalisations.
            rates: η_p by parameter name; 1 where absent.

        Raises:
            ParameterError: no members, or tensors of unlike numbers of them.
        """
        stacked = {**parameters, **(buffers or {})}
        if len(counts := {len(value) if value.ndim else 0 for value in stacked.values()}) != 1 or not (count := counts.pop()):
            raise ParameterError(f"a stack must hold the same number of members in each of its tensors, got {sorted(counts) or 'none'}")
        each = [self(network, rates=rates, values={name: value[i] for name, value in stacked.items()}) for i in range(count)]
        return torch.stack(each)

    def _checked(
        self, network: nn.Module, rates: Mapping[str, float] | None, values: Mapping[str, Tensor] | None
    ) -> tuple[dict[str, Tensor], Mapping[str, float]]:
        """Values and rates of a network that has the parameters of the one that was looked at."""
        if missing := sorted(self._names - {name for name, _ in network.named_parameters()}):
            raise ParameterError(f"`{type(network).__name__}` has no parameter `{missing[0]}`: the network of this kernel had one")
        return checked_values(network, values), checked_rates(network, rates)

    @torch.inference_mode(False)
    def _empty(self, network: nn.Module) -> Tensor:
        like = next(network.parameters())
        c = self._survey.outputs if self._full else 1
        make = torch.empty if self._units else torch.zeros  # without units the outputs depend on no parameter
        return make(len(self.x) * c, len(self.x2) * c, dtype=like.dtype, device=like.device)

    def _fill(self, request: Request) -> None:
        """Write the kernels that are asked for, piece by piece."""
        chunks = [list(range(0, len(x), self._plan.rows)) for x in (self.x, self.x2)]
        if not self._units:
            return
        with torch.no_grad(), _undisturbed(self.x):
            for number, cotangents in enumerate(self._cotangents.split(self._plan.cotangents)):
                shares = request.shares(self._units, fresh=number == 0)
                for start in chunks[0]:
                    left = self._collector.factors(request, self.x, start, cotangents, "left")
                    for other in chunks[1]:
                        if self._symmetric and other < start:
                            continue
                        right = (
                            left
                            if self._symmetric and other == start
                            else self._collector.factors(request, self.x2, other, cotangents, "right")
                        )
                        self._contract(request, shares, left, right, start, other, cotangents)

    def _contract(
        self,
        request: Request,
        shares: list[list[Share]],
        left: list[Factor],
        right: list[Factor],
        start: int,
        other: int,
        cotangents: Tensor,
    ) -> None:
        """Add every unit's part of the block of the kernel that belongs to these factors, rows by rows."""
        each, upper = len(cotangents) if self._full else 1, left is right
        head = float(cotangents.double().square().sum())
        columns = right[0].samples
        for begin, end in contract.row_blocks(left[0].samples, columns, each, upper=upper):
            first = begin if upper else 0
            place = slice((start + begin) * each, (start + end) * each), slice((other + first) * each, (other + columns) * each)
            for unit, given, a, b in zip(self._units, shares, left, right, strict=True):
                factors = a[begin:end], b[first:]
                for share in given:
                    self._add(request, unit, share, factors, share.kernel[place], head)

    def _add(self, request: Request, unit: Unit, share: Share, factors: tuple[Factor, Factor], block: Tensor, head: float) -> None:
        """What a share gives to one block; `head`: Σ of the squared cotangents."""
        one_product = unit.contraction != "gram" or (not unit.head and all(f.operands[0].shape[1] == 1 for f in factors))
        if share.fresh and not one_product:
            block.zero_()
        if unit.contraction != "gram":
            left, right = (factor.rows.flatten(0, -2) for factor in factors)
            for number, (columns, rate) in enumerate(request.columns(unit, share.numbers, left.shape[1])):
                contract.add_product(block, left[:, columns], right[:, columns], rate, fresh=share.fresh and number == 0)
        elif unit.head and self._full:
            contract.add_head(block, self._weights(request, unit, share.numbers, *factors)[:, 0, :, 0], len(block) // factors[0].samples)
        elif unit.head:  # the gradient there is the cotangent, the same for all samples
            for number in share.numbers:
                rate = head * request.rate(unit.parts[number])
                contract.add_traced_head(block, factors[0].operands[number], factors[1].operands[number], rate)
        else:
            self._add_gram(request, unit, share.numbers, factors, block, fresh=share.fresh and one_product)

    def _add_gram(
        self, request: Request, unit: Unit, numbers: list[int], factors: tuple[Factor, Factor], block: Tensor, *, fresh: bool
    ) -> None:
        """(Products of operands) ∘ (products of gradients), in blocks that pairs of positions do not make too large."""
        left, right = factors
        each = len(block) // left.samples
        positions = left.operands[0].shape[1] * right.operands[0].shape[1]
        if not positions:  # inputs without any position
            return
        add = contract.add_full if self._full else contract.add_traced
        for begin, end in contract.gram_blocks(left.samples, right.samples, 1 if self._full else positions):
            part = left if end - begin == left.samples else left[begin:end]
            weights = self._weights(request, unit, numbers, part, right)
            add(block[begin * each : end * each], weights, part.rows, right.rows, fresh=fresh)

    def _weights(self, request: Request, unit: Unit, numbers: list[int], left: Factor, right: Factor) -> Tensor:
        """Products of operands, weighted by the rates."""
        given = request.kernel.dtype, [request.rate(unit.parts[number]) for number in numbers]
        return self._kept.product(numbers, given, left, right, lambda: request.weights(unit, numbers, left, right))


@contextmanager
def _undisturbed(x: Tensor) -> Iterator[None]:
    """The random streams of the processor and of the probe's device stay as they are; gradients can be taken in a validation step."""
    with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []), torch.inference_mode(False):
        yield


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0] or parameter
