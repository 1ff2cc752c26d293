"""Where a network's first layer, readout, biases and homogeneous pairs are, by parameter name."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from richlearn.errors import NotApplicable, ParameterError, nearest
from richlearn.networks._trace import guess, trace
from richlearn.networks.spaces import Space, find_spaces

_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)


@dataclass(frozen=True)
class Layer:
    """One weight of the network (two or more dimensions), the bias beside it, and the module that owns them."""

    weight: str
    bias: str | None
    module: str
    lookup: bool = False


@dataclass(frozen=True)
class Pair:
    """Weights into and out of the same hidden units through an activation that is positively homogeneous of `degree`.

    Each row of the outgoing weight holds `outer` times all units: once, or for each position if units on the last axis were
    flattened with positions before them. With rates η_w, η_a: δ_k = degree·η_w‖out_k‖² − η_a(‖in_k‖² + bias_k²) is
    conserved (Kunin et al. 2024, section 4).
    """

    incoming: str
    bias: str | None
    outgoing: str
    degree: float = 1.0
    outer: int = 1

    def squared_norms(self, parameters: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Per hidden unit ‖in_k‖² (its bias included) and ‖out_k‖², each of shape (units,)."""
        incoming = parameters[self.incoming].flatten(1).square().sum(1)
        if self.bias is not None:
            incoming = incoming + parameters[self.bias].square()
        return incoming, self.by_unit(parameters[self.outgoing], len(incoming)).square().sum((0, 2))

    def by_unit(self, outgoing: Tensor, units: int) -> Tensor:
        """A view (outputs·outer, units, rest) of the outgoing weight: a unit owns columns, or blocks of them after a convolution."""
        return outgoing.view(len(outgoing) * self.outer, units, -1)


@dataclass(frozen=True)
class Structure:
    """Parameter names. `layers` in order of use; `readout` holds weights then biases; `biases`: all before the readout, norms' excluded."""

    layers: tuple[Layer, ...]
    first: tuple[str, ...]
    readout: tuple[str, ...]
    biases: tuple[str, ...]
    pairs: tuple[Pair, ...]

    @property
    def homogeneous(self) -> bool:
        """Whether every hidden layer stands in a homogeneous pair."""
        return len(self.layers) > 1 and len(self.pairs) == len(self.layers) - 1

    @property
    def separate(self) -> bool:
        """Whether the first layer and the readout are different weights (a tied or single layer is both)."""
        return not set(self.first) & set(self.readout)


def _registered(network: nn.Module) -> tuple[list[Layer], list[str]]:
    """All weight layers in order of registration, and the one-dimensional parameters that no single weight owns."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    layers: list[Layer] = []
    loose: list[str] = []
    for module_name, module in network.named_modules():
        own = [] if isinstance(module, _NORMS) else list(module.parameters(recurse=False))
        weights = [names[id(p)] for p in own if p.ndim > 1]
        biases = [names[id(p)] for p in own if p.ndim == 1] if weights else []
        paired = len(weights) == len(biases)
        lookup = isinstance(module, nn.Embedding | nn.EmbeddingBag)
        layers += [Layer(w, biases[i] if paired else None, module_name, lookup) for i, w in enumerate(weights)]
        loose += [] if paired else biases
    return layers, loose


def _in_order_of_use(layers: list[Layer], calls: tuple[str, ...]) -> list[Layer]:
    """Sort by first call; a layer that is not called itself (inside attention, say) follows the one registered before it."""
    places: list[int] = []
    for layer in layers:
        places.append(calls.index(layer.module) if layer.module in calls else max(places[-1:], default=0))
    return [layers[i] for i in sorted(range(len(layers)), key=lambda i: places[i])]


def _declared(network: nn.Module, attribute: str) -> tuple[str, ...]:
    """Parameter names that `network.<attribute>` declares: names of modules or parameters, or modules; () if it declares none."""
    found: list[str] = []
    value = getattr(network, attribute, ())
    if not isinstance(value, str | nn.Module | list | tuple):
        return ()  # a method or a number that happens to have this name
    modules, parameters = dict(network.named_modules()), dict(network.named_parameters())
    for item in [value] if isinstance(value, str | nn.Module) else value:
        name = next((n for n, m in modules.items() if m is item), item)
        inside = [p for p in parameters if p == name or p.startswith(f"{name}.")]
        if not inside:
            raise ParameterError(
                f"`{attribute}` of network `{type(network).__name__}` names `{name}`, which holds no parameter; "
                f"{nearest(str(name), [*filter(None, modules), *parameters])}"
            )
        found += inside
    return tuple(found)


def _pair(space: Space, parameters: Mapping[str, Tensor]) -> Pair | None:
    """The pair that a space is, if one weight writes its units, one reads them, and each can be rescaled by itself."""
    if space.broken or space.norms or space.kind != "units" or len(space.incoming) != 1 or len(space.outgoing) != 1:
        return None
    (weight, *bias), out = space.incoming[0], space.outgoing[0]
    plain = weight.role == out.role == "weight" and weight.split[1] == 1 and out.split[0] == 1 and out.degree == 1 and out.part is None
    outer, rest = divmod(out.split[1], len(parameters[out.parameter]))  # 0 where the units are the rows, as of W in x @ W
    return Pair(weight.parameter, bias[0].parameter if bias else None, out.parameter, outer=outer) if plain and outer and not rest else None


def seen_pairs(network: nn.Module, sample_input: Tensor | None = None) -> tuple[Pair, ...]:
    """The homogeneous pairs that one forward pass shows; the conservation laws are read off the same spaces."""
    parameters = dict(network.named_parameters())
    found = (_pair(space, parameters) for space in find_spaces(network, sample_input).spaces)
    return tuple(pair for pair in found if pair is not None)


def declared_pairs(network: nn.Module) -> tuple[Pair, ...] | None:
    """The pairs in the network's attribute `homogeneous_pairs`, tuples of two module names; None if it has none.

    Raises:
        ParameterError: a name is no weight layer.
    """
    if not hasattr(network, "homogeneous_pairs"):
        return None
    by_module = {layer.module: layer for layer in _registered(network)[0]}
    pairs = []
    for into, out in network.homogeneous_pairs:  # pyright: ignore[reportGeneralTypeIssues]
        for name in (into, out):
            if name not in by_module:
                raise ParameterError(f"`homogeneous_pairs` names `{name}`, which is no weight layer; {nearest(name, by_module)}")
        pairs.append(Pair(by_module[into].weight, by_module[into].bias, by_module[out].weight))
    return tuple(pairs)


def _ends(network: nn.Module, layers: list[Layer], last_used: Layer) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """First-layer weights and readout parameters: declared, else all embedding tables or the first layer, and the last layer."""
    weights = {layer.weight for layer in layers}
    tables = tuple(layer.weight for layer in layers if layer.lookup)
    first = tuple(n for n in _declared(network, "first_layer") if n in weights) or tables or (layers[0].weight,)
    declared = sorted(_declared(network, "readout"), key=lambda name: name not in weights)
    return first, tuple(declared) or tuple(filter(None, (last_used.weight, last_used.bias)))


def find(network: nn.Module, sample_input: Tensor | None = None) -> Structure:
    """First layer, readout, biases and homogeneous pairs of any network.

    Attributes of the network win: `first_layer` and `readout` (a module, a name of a module or parameter, or a list of
    these) and `homogeneous_pairs` (tuples of two module names). Else the first layer is all embedding tables, or the
    first weight used; the readout is the last weight used. Normalisation layers are neither. Pairs are two linear or
    convolutional layers, one of which alone writes units that the other alone reads, with nothing but positively
    homogeneous operations (ReLU, pooling, flatten, …) between; `richlearn.conservation` has the laws of all others.

    Args:
        network: any module with parameters.
        sample_input: a batch of inputs; the order of use is seen on it. Without it a network that begins with
            `nn.Linear` is called on zeros, any other is taken in order of registration.

    Raises:
        NotApplicable: the network has no weight layer.
        ParameterError: a declared name does not exist.
    """
    registered, loose = _registered(network)
    if not registered:
        raise NotApplicable(f"network `{type(network).__name__}` has no weight layer (no parameter of two or more dimensions)")
    seen = guess(network) if sample_input is None else trace(network, sample_input)
    used = _in_order_of_use(registered, seen.calls)
    last_call = {layer.module: len(seen.calls) - seen.calls[::-1].index(layer.module) for layer in used if layer.module in seen.calls}
    last_used = used[-1] if used[-1].module not in last_call else max(reversed(used), key=lambda layer: last_call.get(layer.module, 0))
    first, readout = _ends(network, used, last_used)
    layers: dict[str, Layer] = {}
    for layer in used:
        layers.setdefault(layer.weight, layer)
    biases = [layer.bias for layer in layers.values() if layer.bias is not None] + loose
    declared = declared_pairs(network)
    return Structure(
        layers=tuple(layers.values()),
        first=first,
        readout=readout,
        biases=tuple(name for name in biases if name not in readout),
        pairs=seen_pairs(network, sample_input) if declared is None else declared,
    )
