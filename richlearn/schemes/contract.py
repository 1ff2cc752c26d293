"""What every initialisation scheme must do, checked on the suite's own and on a user's."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor, nn

from richlearn.errors import NotApplicable, RichlearnError
from richlearn.networks import MLP, Linear, Structure, TwoLayer, find
from richlearn.schemes._common import OPTIMIZERS
from richlearn.schemes.base import Scheme
from richlearn.schemes.multipliers import Multipliers
from richlearn.seeds import global_stream

DTYPES = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Case:
    """A network to try a scheme on: its name, a constructor, and a batch of its inputs."""

    name: str
    build: Callable[[], nn.Module]
    batch: Tensor

    def fresh(self, dtype: torch.dtype) -> nn.Module:
        """The network, the same at every call."""
        with global_stream(torch.Generator().manual_seed(7)):
            return self.build().to(dtype)


def _normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 3))


def _convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))


class _Embedded(nn.Module):
    """Tokens → embeddings → attention → readout: a small network that is no chain."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(7, 8)
        self.positions = nn.Embedding(4, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.out = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        return self.out(self.norm(x + self.attention(x, x, x, need_weights=False)[0])[:, -1])


def _inputs(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def default_cases() -> list[Case]:
    """Shallow and deep, with and without bias, one and several outputs, normalisation, convolution, embeddings."""
    x = _inputs(16, 6)
    return [
        Case("TwoLayer(6, 1)", lambda: TwoLayer(6, 1, width=8), x),
        Case("TwoLayer(6, 9) with bias", lambda: TwoLayer(6, 9, width=4, activation="leaky_relu", bias=True), x),
        Case("Linear(6, 3)", lambda: Linear(6, 3, width=2), x),
        Case("Linear(6, 1) of one unit", lambda: Linear(6, 1, width=1), x),
        Case("Linear(6, 1), square and deep", lambda: Linear(6, 1, width=6, depth=2), x),
        Case("MLP(6, 3)", lambda: MLP(6, 3, width=8), x),
        Case("MLP(6, 1) under gelu", lambda: MLP(6, 1, width=8, depth=2, activation="gelu"), x),
        Case("one nn.Linear", lambda: nn.Linear(6, 3), x),
        Case("LayerNorm in a chain", _normalised, x),
        Case("convolutions", _convolutional, _inputs(8, 1, 6, 6)),
        Case("embeddings and attention", _Embedded, torch.arange(32).remainder(7).view(8, 4)),
    ]


def _applied(scheme: Scheme, case: Case, dtype: torch.dtype, seed: int = 0, optimizer: str | None = None) -> tuple[nn.Module, Multipliers]:
    network = case.fresh(dtype)
    return network, scheme.apply(network, torch.Generator().manual_seed(seed), batch=case.batch, optimizer=optimizer)


def _equal(left: nn.Module, right: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(left.parameters(), right.parameters(), strict=True))


def _described(network: nn.Module) -> dict[str, tuple]:
    return {name: (tuple(p.shape), p.dtype, p.requires_grad, p.device) for name, p in network.named_parameters()}


def _draws(scheme: Scheme, case: Case, dtype: torch.dtype) -> Iterator[str]:
    before, stream = case.fresh(dtype), torch.get_rng_state()
    network, _ = _applied(scheme, case, dtype)
    if not torch.equal(stream, torch.get_rng_state()):
        yield "torch's global random stream has moved: draw from `generator` only"
    if _described(network) != _described(before):
        yield "names, shapes, dtypes, devices or requires_grad of the parameters have changed: write into them in place"
        return
    if not all(bool(p.isfinite().all()) for p in network.parameters()):
        yield "some parameters are not finite"
    if not _equal(network, _applied(scheme, case, dtype)[0]):
        yield "the same generator seed gives other parameters the second time"
    if not scheme.deterministic and _equal(network, _applied(scheme, case, dtype, seed=1)[0]):
        yield "another generator seed gives the same parameters: set `deterministic = True` if that is meant"


def _multipliers(scheme: Scheme, case: Case, dtype: torch.dtype) -> Iterator[str]:
    for optimizer in (None, *OPTIMIZERS):
        network, multipliers = _applied(scheme, case, dtype, optimizer=optimizer)
        if not isinstance(multipliers, Multipliers):
            yield f"`apply` must return `Multipliers`, got {type(multipliers).__name__}"
            return
        names = {name for name, _ in network.named_parameters()}
        for kind in ("lr", "weight_decay", "eps"):
            factors = getattr(multipliers, kind)
            if unknown := sorted(factors.keys() - names):
                yield f"the {kind} multipliers name `{unknown[0]}`, which the network does not have (optimizer {optimizer})"
            if not all(isfinite(factor) and factor > 0 for factor in factors.values()):
                yield f"the {kind} multipliers are not all positive and finite (optimizer {optimizer})"


def _delta(delta: float, structure: Structure, network: nn.Module) -> Iterator[str]:
    parameters = {name: parameter.detach() for name, parameter in network.named_parameters()}
    for pair in structure.pairs:
        incoming, outgoing = pair.squared_norms(parameters)
        error = float(((outgoing - incoming - delta).abs() / (outgoing + incoming)).max())
        if not error <= 1e-6:
            yield f"δ of `{pair.incoming}` is not {delta} in every unit: off by up to {error:.2g} of ‖out‖² + ‖in‖²"


def _truths(scheme: Scheme, case: Case, dtype: torch.dtype) -> Iterator[str]:
    if dtype != torch.float64:
        return
    truths, (network, _) = scheme.truths(), _applied(scheme, case, dtype)
    structure = find(network, case.batch)
    if truths.delta is not None:
        yield from _delta(truths.delta, structure, network)
    if truths.same_function_as is not None and structure.homogeneous:
        other, _ = _applied(truths.same_function_as, case, dtype)
        with torch.no_grad():
            same = torch.allclose(network(case.batch), other(case.batch), rtol=1e-8, atol=1e-10)
        if not same:
            yield f"the function differs from that of {truths.same_function_as} at the same generator seed"


_CHECKS = (_draws, _multipliers, _truths)


def _instance(scheme: type[Scheme] | Scheme) -> Scheme | str:
    """The scheme to test, or the finding that there is none."""
    name = scheme.__name__ if isinstance(scheme, type) else type(scheme).__name__
    if not (issubclass(scheme, Scheme) if isinstance(scheme, type) else isinstance(scheme, Scheme)):
        return f"`{name}` does not derive from `richlearn.schemes.Scheme`"
    if not isinstance(scheme, type):
        return scheme
    try:
        return scheme()
    except (TypeError, RichlearnError) as error:
        return f"`{name}()` cannot be built without arguments ({error}): give every field a default and implement `apply`"


def _run(scheme: Scheme, case: Case, dtype: torch.dtype) -> tuple[bool, list[str]]:
    """Whether the network could be served, and the findings on it."""
    where = f"{case.name}, {str(dtype).removeprefix('torch.')}: "
    try:
        return True, [where + finding for run in _CHECKS for finding in run(scheme, case, dtype)]
    except NotApplicable as reason:
        return False, [] if str(reason) else [f"{where}`NotApplicable` is raised without a reason"]
    except Exception as error:  # a user's own code may raise anything
        return True, [f"{where}{type(error).__name__}: {error} (a network that cannot be served must get `NotApplicable`)"]


def check(scheme: type[Scheme] | Scheme, networks: Sequence[Case] | None = None) -> list[str]:
    """Findings about a scheme, class or instance; empty when it keeps the contract.

    On every network, in float32 and float64: equal generator seeds give equal parameters bit for bit and unlike seeds
    others; names, shapes, dtypes and devices stay; parameters are finite; torch's global stream is not touched;
    multipliers name existing parameters, positive and finite, for every optimiser; what `truths()` says holds. A
    network that the scheme cannot serve gets `NotApplicable` with a reason, and at least one is served.
    """
    found = _instance(scheme)
    if isinstance(found, str):
        return [found]
    findings: list[str] = []
    served = 0
    for case in default_cases() if networks is None else networks:
        for dtype in DTYPES:
            could, more = _run(found, case, dtype)
            served += could
            findings += more
    return findings if served else [*findings, "it is not applicable to any of the networks tried"]
