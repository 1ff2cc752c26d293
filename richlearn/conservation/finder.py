"""The conservation laws of any network."""

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

from torch import Tensor, nn

from richlearn.conservation.declared import attention_spaces, pair_laws
from richlearn.conservation.laws import Law, Laws, ScalingLaw, ShiftLaw
from richlearn.errors import ParameterError, nearest
from richlearn.networks.spaces import Space, Spaces, Term, find_spaces

Loss = Literal["cross_entropy"]


def check_loss(loss: str | None) -> None:
    """Raise `ParameterError` unless the laws of this loss are known; None stands for any loss."""
    if loss is not None and loss not in get_args(Loss):
        raise ParameterError(f"unknown `loss` {loss!r}, or None for any; {nearest(str(loss), get_args(Loss))}")


def _owners(terms: Iterable[Term]) -> list[str]:
    """The modules of the terms' parameters, or a parameter's own name at the top of the network."""
    return list(dict.fromkeys(term.parameter.rpartition(".")[0] or term.parameter for term in terms))


def _name(space: Space) -> str:
    incoming = _owners(term for producer in space.incoming for term in producer)
    outgoing = [*_owners(space.outgoing), *space.norms]
    if space.kind == "query_key" and incoming == outgoing:
        return f"{incoming[0]}: query → key"
    return f"{' + '.join(incoming)} → {' + '.join(outgoing)}"


def _scaling(space: Space) -> Iterator[ScalingLaw]:
    """The law of what undoes a scaling or mixing of the units."""
    if space.broken is None and (space.outgoing or space.norms):
        units = "scale_invariance" if space.norms else "linear" if space.full else "rescaling"
        kind = units if space.kind == "units" else space.kind
        terms = tuple(term for producer in space.incoming for term in producer)
        yield ScalingLaw(_name(space), kind, space.blocks, terms, space.outgoing, space.full)


def _shifted(term: Term, space: Space) -> bool:
    """Whether something can be added to this term's rows that the centring takes away."""
    if term.role == "gain" or space.reach == "everywhere":
        return term.role != "gain"
    return term.role == "bias" and term.split[1] * term.split[3] == 1


def _shifts(space: Space) -> Iterator[ShiftLaw]:
    """A law for each layer that writes into units which something centres."""
    for producer in space.incoming if space.centred else ():
        if terms := tuple(term for term in producer if _shifted(term, space)):
            kind = "softmax_shift" if "softmax" in space.centres else "shift_invariance"
            name = " + ".join(_owners(terms)) + "".join(f" → {centre}" for centre in space.centres)
            yield ShiftLaw(name, space.kind if space.kind == "key_bias" else kind, space.centred, terms, producer)


def _of(spaces: Iterable[Space]) -> list[Law]:
    return [law for space in spaces for law in (*_scaling(space), *_shifts(space))]


def _reason(network: nn.Module, seen: Spaces) -> str:
    """Why there is no law, in one line."""
    kind = type(network).__name__
    if seen.stopped is not None:
        return f"`{kind}` declares no `homogeneous_pairs` or `attention_blocks`, and {seen.stopped}"
    hidden = [space for space in seen.spaces if space.broken and "network's output" not in space.broken]
    if not hidden:
        return f"`{kind}` has no hidden units between two weight layers"
    owner = _owners(term for producer in hidden[0].incoming for term in producer)[0]
    return f"no units of `{kind}` can be changed unseen: those of `{owner}` {hidden[0].broken}"


def find_laws(network: nn.Module, sample_input: Tensor | None = None, *, loss: Loss | None = None) -> Laws:
    """What gradient flow conserves in a network, in the mode it is in (training or evaluation), for any loss and data.

    One forward pass is watched. Units between weight layers (linear, convolution, embedding, attention, gains of
    normalisations; several may write and read the same units, as in residual streams) have a δ_k each if only positively
    homogeneous operations stand between, a matrix Δ if only linear ones, a sum or sums over blocks in front of
    normalisations. What is not known to be sound has no law. Declarations of the network add to what is seen:
    `homogeneous_pairs`, tuples of two module names, and `attention_blocks` (see `attention_spaces`).

    Args:
        network: any module.
        sample_input: a batch of inputs; without it, zeros of a shape that the network takes, where one can be guessed.
        loss: `cross_entropy` adds what the softmax over the last axis of the outputs (the classes) conserves.

    Returns:
        The laws; where there are none, `why` says in one line what stands against them.

    Raises:
        ParameterError: a declaration is wrong, or the loss unknown.

    >>> from richlearn.networks import MLP
    >>> [(law.name, law.kind, law.blocks) for law in find_laws(MLP(5, 1, width=4, depth=1))]
    [('layers.0 → layers.2', 'rescaling', 4)]
    >>> find_laws(MLP(5, 1, width=4, depth=1, activation="gelu")).why
    'no units of `MLP` can be changed unseen: those of `layers.0` reach `gelu`'
    """
    check_loss(loss)
    seen = find_spaces(network, sample_input, loss=loss)
    laws = _of(seen.spaces)
    known = {law.parameters for law in laws}
    more = [*pair_laws(network), *_of(attention_spaces(network))]
    laws += [law for law in more if law.parameters not in known]
    return Laws(tuple(laws), "" if laws else _reason(network, seen))
