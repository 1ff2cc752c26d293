"""The laws that a network declares, where no tracing can see them."""

from collections.abc import Mapping

from torch import Tensor, nn

from richlearn.conservation.laws import ScalingLaw
from richlearn.errors import ParameterError, nearest
from richlearn.networks.spaces import Space, Term
from richlearn.networks.structure import Pair, declared_pairs

_SIDES = ("query", "key", "value", "output")


def pair_law(pair: Pair, parameters: Mapping[str, Tensor]) -> ScalingLaw:
    """δ of the units between two weight layers."""
    into, out = parameters[pair.incoming], parameters[pair.outgoing]
    units = len(into)
    terms = [Term(pair.incoming, (1, 1, units, into[0].numel()))]
    if pair.bias is not None:
        terms.append(Term(pair.bias, (1, 1, units, 1), role="bias"))
    reader = Term(pair.outgoing, (1, len(out), units, out[0].numel() // units), degree=pair.degree)
    name = " → ".join(weight.removesuffix(".weight") for weight in (pair.incoming, pair.outgoing))
    return ScalingLaw(name, "rescaling", units, tuple(terms), (reader,))


def pair_laws(network: nn.Module) -> list[ScalingLaw]:
    """The laws of the network's attribute `homogeneous_pairs`."""
    parameters = dict(network.named_parameters())
    return [pair_law(pair, parameters) for pair in declared_pairs(network) or ()]


def _weight(network: nn.Module, name: str) -> tuple[str, str | None]:
    """The names of the weight and the bias of a module, or of a parameter alone."""
    parameters = dict(network.named_parameters())
    if name in parameters:
        return name, None
    if f"{name}.weight" in parameters:
        return f"{name}.weight", f"{name}.bias" if f"{name}.bias" in parameters else None
    raise ParameterError(f"`attention_blocks` names `{name}`, which is no weight; {nearest(name, parameters)}")


def _rows(network: nn.Module, names: tuple[str, ...], side: int, width: int) -> tuple[Term, ...]:
    """Terms of query, key or value; one name for all three means a packed weight, a third of its rows each."""
    weight, bias = _weight(network, names[side])
    packed = len(set(names[:3])) == 1
    rows = (side * width, (side + 1) * width) if packed else None
    shape = network.get_parameter(weight).shape
    if shape[0] != width * (3 if packed else 1):
        raise ParameterError(f"`attention_blocks`: `{weight}` has {shape[0]} rows, the heads of `{names[3]}` read {width}")
    terms = [Term(weight, (1, 1, width, shape[1]), rows)]
    if bias is not None:
        terms.append(Term(bias, (1, 1, width, 1), rows, role="bias"))
    return tuple(terms)


def _block(network: nn.Module, names: tuple[str, ...], heads: int) -> list[Space]:
    out, _ = _weight(network, names[3])
    outputs, width = network.get_parameter(out).shape
    query, key, value = (_rows(network, names, side, width) for side in range(3))
    reader = Term(out, (1, outputs, width, 1))
    return [
        Space("query_key", width, heads, True, (query,), key),
        Space("value_output", width, heads, True, (value,), (reader,)),
        Space("key_bias", width, 1, False, (key,), (), (), "have no scale of their own", "constant", width, ("softmax",)),
    ]


def attention_spaces(network: nn.Module) -> list[Space]:
    """The spaces inside the heads that the network's attribute `attention_blocks` declares.

    It is a list of (query, key, value, output, heads): names of `nn.Linear` modules or of their weights (outputs × inputs),
    whose rows (the output's columns) are sorted by head; the same name thrice for a packed weight. It says that scores
    are softmax of query·key and nothing (no rotation, no normalisation) stands between.

    Raises:
        ParameterError: an entry is no such tuple, a name does not exist, or sizes do not fit.
    """
    spaces: list[Space] = []
    for entry in getattr(network, "attention_blocks", ()):
        if not isinstance(entry, tuple | list) or len(entry) != 5 or not isinstance(entry[4], int) or entry[4] < 1:
            raise ParameterError(f"`attention_blocks` holds (query, key, value, output, heads), got {entry!r}")
        spaces += _block(network, tuple(entry[:4]), entry[4])
        if spaces[-1].units % entry[4]:
            raise ParameterError(f"`attention_blocks`: {spaces[-1].units} columns of `{entry[3]}` are no multiple of {entry[4]} heads")
    return spaces
