"""The parts of a transformer: weights with a draw of their own, and one block of attention and feed-forward layer."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import sqrt

import torch
from torch import Tensor, nn

Draw = Callable[[Tensor], object]


@dataclass(frozen=True)
class Form:
    """What sets one variant of the transformer apart.

    Attributes:
        activation: of the feed-forward layer.
        normalised: whether a LayerNorm follows each residual sum.
        final_norm: whether one more stands before the readout.
        biases: of attention, LayerNorm and readout.
        feed_forward_biases: of the feed-forward layer.
        scaled: whether every weight is N(0, 1/`width`) (readout: N(0, 1/`vocabulary`)) and every bias 0, in place of
            PyTorch's defaults and N(0, 1) embeddings.
    """

    activation: Callable[[], nn.Module]
    normalised: bool
    final_norm: bool
    biases: bool
    feed_forward_biases: bool
    scaled: bool


class Drawn(nn.Linear):
    """A linear layer whose weight comes from a draw of its own and whose bias starts at 0."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool, draw: Draw) -> None:
        self.draw = draw
        super().__init__(in_features, out_features, bias=bias)

    def reset_parameters(self) -> None:
        """Draw the weight anew; the bias becomes 0."""
        self.draw(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Table(nn.Embedding):
    """A lookup table with N(0, `std`²) entries."""

    def __init__(self, rows: int, width: int, *, std: float = 1.0) -> None:
        self.std = std
        super().__init__(rows, width)

    def reset_parameters(self) -> None:
        """Draw all rows anew."""
        nn.init.normal_(self.weight, std=self.std)


def draws(form: Form, width: int) -> tuple[Draw, Draw]:
    """How queries, keys and values are drawn, and how the attention's output weight is.

    PyTorch draws the three as one packed matrix (3·width, width), Xavier uniform: so a third has variance 1/(2·width).
    """
    if form.scaled:
        normal = partial(nn.init.normal_, std=1 / sqrt(width))
        return normal, normal
    bound = sqrt(6 / (4 * width))
    return partial(nn.init.uniform_, a=-bound, b=bound), partial(nn.init.kaiming_uniform_, a=sqrt(5))


def _later(queries: int, positions: int, like: Tensor) -> Tensor:
    """(a, t): −∞ where one of the last a positions would see a later one, else 0."""
    return torch.full((queries, positions), float("-inf"), dtype=like.dtype, device=like.device).triu(1 + positions - queries)


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """softmax(q kᵀ/√(width/heads)) v of each head, side by side, each position seeing itself and those before it.

    Args:
        query: (n, a, width), of the last a positions.
        key, value: (n, t, width).
        heads: the number of heads; divides the width.

    Returns:
        (n, a, width).
    """
    q, k, v = (each.unflatten(-1, (heads, -1)).transpose(-3, -2) for each in (query, key, value))  # n, head, position, feature
    scores = (q / sqrt(q.shape[-1])) @ k.transpose(-1, -2)
    if (queries := query.shape[-2]) > 1:  # the last position alone sees all
        scores = scores + _later(queries, key.shape[-2], scores)
    return (scores.softmax(-1) @ v).transpose(-3, -2).flatten(-2)


class Block(nn.Module):
    """x ← LN(x + W_O attention(x)), then x ← LN(x + W₂ σ(W₁ x)); LN is the identity in variants without one.

    Args:
        width: features of a position, a multiple of `heads`.
        heads: of the attention.
        feed_forward: hidden units of the feed-forward layer.
        form: of the variant.
    """

    def __init__(self, width: int, heads: int, feed_forward: int, form: Form) -> None:
        super().__init__()
        self.heads = heads
        inward, outward = draws(form, width)
        self.query, self.key, self.value = (Drawn(width, width, bias=form.biases, draw=inward) for _ in range(3))
        self.output = Drawn(width, width, bias=form.biases, draw=outward)
        self.attention_norm = nn.LayerNorm(width, bias=form.biases) if form.normalised else nn.Identity()
        self.expand, self.contract = self._feed_forward(width, feed_forward, form)
        self.activation = form.activation()
        self.feed_forward_norm = nn.LayerNorm(width, bias=form.biases) if form.normalised else nn.Identity()

    @staticmethod
    def _feed_forward(width: int, units: int, form: Form) -> tuple[nn.Linear, nn.Linear]:
        if not form.scaled:
            return nn.Linear(width, units, bias=form.feed_forward_biases), nn.Linear(units, width, bias=form.feed_forward_biases)
        draw = partial(nn.init.normal_, std=1 / sqrt(width))
        return (
            Drawn(width, units, bias=form.feed_forward_biases, draw=draw),
            Drawn(units, width, bias=form.feed_forward_biases, draw=draw),
        )

    def attend(self, hidden: Tensor, queries: int) -> Tensor:
        """What the last a = `queries` positions find in `hidden` (n, t, width), before W_O: (n, a, width)."""
        return attention(self.query(hidden[:, -queries:]), self.key(hidden), self.value(hidden), self.heads)

    def forward(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """The block's output where the residual stream is `hidden` and attention found `attended`, each (…, width)."""
        hidden = self.attention_norm(hidden + self.output(attended))
        return self.feed_forward_norm(hidden + self.contract(self.activation(self.expand(hidden))))
