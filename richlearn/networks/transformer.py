"""The transformer of the grokking experiments, computed only where its readout looks."""

from functools import partial
from itertools import pairwise
from math import sqrt
from typing import final

import torch
from torch import Tensor, nn

from richlearn.errors import ParameterError, nearest
from richlearn.networks._attention import Block, Drawn, Form, Table
from richlearn.networks._tables import begin, cheaper
from richlearn.networks.mlp import at_least_one

VARIANTS: dict[str, Form] = {
    "post_norm": Form(nn.GELU, normalised=True, final_norm=True, biases=True, feed_forward_biases=True, scaled=False),
    "plain": Form(nn.ReLU, normalised=True, final_norm=False, biases=False, feed_forward_biases=False, scaled=False),
    "no_norm": Form(nn.ReLU, normalised=False, final_norm=False, biases=False, feed_forward_biases=True, scaled=True),
}


def _form(variant: object) -> Form:
    if not isinstance(variant, str) or variant not in VARIANTS:
        raise ParameterError(f"unknown `variant` {variant!r}; {nearest(str(variant), VARIANTS)}")
    return VARIANTS[variant]


@final
class Transformer(nn.Module):
    """A decoder on tokens (n, t), t = `in_features`, whose logits (n, c) are read at the last position (Power et al. 2022).

    x = E[token] + P[position]; `layers` blocks x ← LN(x + attention(x)), x ← LN(x + W₂ σ(W₁ x)); logits = W_head LN(x_t).
    Attention is causal; in the last block, and so in a network of one, nothing would change without the mask, because
    only the last position is read. Variants (public implementations of the task differ; every result says which):

    - `post_norm`: GELU, biases, LayerNorm after each residual sum and before the readout, embeddings N(0, 1), PyTorch's
      default initialisation elsewhere (attention: that of `nn.MultiheadAttention`).
    - `plain`: the same with ReLU, no biases and no LayerNorm before the readout.
    - `no_norm`: no LayerNorm, ReLU, biases in the feed-forward layer alone; embeddings and weights N(0, 1/width), readout
      N(0, 1/vocabulary), biases 0 (Nanda et al. 2023 and its public notebook).

    The last block computes queries, attention output and feed-forward layer at the last position only. Where a batch has
    more positions than there are tokens, the first block projects the two tables, W(E[v] + P[j]) = W E[v] + W P[j], and
    looks the sums up; hooks and function modes see the direct computation instead. Same function, up to rounding.

    Args:
        in_features: positions t.
        out_features: classes c.
        variant: see above.
        layers: number of blocks.
        width: features of a position, a multiple of `heads`.
        heads: of each attention.
        feed_forward: hidden units of each feed-forward layer.
        vocabulary: number of tokens, 0 … vocabulary − 1; by default c + 2: the classes, an operation, and "=".

    Raises:
        ParameterError: a size below 1, heads that do not divide the width, an unknown variant.
    """

    takes_tokens = True

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        variant: str = "post_norm",
        layers: int = 1,
        width: int = 128,
        heads: int = 4,
        feed_forward: int = 512,
        vocabulary: int | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = at_least_one("in_features", in_features), at_least_one("out_features", out_features)
        self.width, self.heads = at_least_one("width", width), at_least_one("heads", heads)
        if width % heads:
            raise ParameterError(f"`heads` must divide `width`, got {heads} heads and width {width}")
        self.vocabulary = out_features + 2 if vocabulary is None else at_least_one("vocabulary", vocabulary)
        units = at_least_one("feed_forward", feed_forward)
        form, self.variant = _form(variant), variant
        std = 1 / sqrt(width) if form.scaled else 1.0
        self.tokens, self.positions = Table(self.vocabulary, width, std=std), Table(in_features, width, std=std)
        self.blocks = nn.ModuleList(Block(width, heads, units, form) for _ in range(at_least_one("layers", layers)))
        self.norm = nn.LayerNorm(width, bias=form.biases) if form.final_norm else nn.Identity()
        self.head = self._readout(form)

    def _readout(self, form: Form) -> nn.Linear:
        if not form.scaled:
            return nn.Linear(self.width, self.out_features, bias=form.biases)
        std = 1 / sqrt(self.vocabulary)
        return Drawn(self.width, self.out_features, bias=form.biases, draw=partial(nn.init.normal_, std=std))

    @property
    def attention_blocks(self) -> list[tuple[str, str, str, str, int]]:
        """Where conserved quantities of the heads are (see `richlearn.conservation`)."""
        names = ("query", "key", "value", "output")
        return [(*(f"blocks.{i}.{name}" for name in names), self.heads) for i in range(len(self.blocks))]  # type: ignore[misc]

    @property
    def _chain(self) -> list[Block]:
        return list(self.blocks)  # type: ignore[arg-type]

    def _watched(self) -> bool:
        """Whether somebody looks at single operations or modules: then each must see its own, sample by sample."""
        first = self._chain[0]
        modules = (self.tokens, self.positions, first.query, first.key, first.value)
        return torch._C._len_torch_function_stack() > 0 or any(
            each._forward_hooks or each._forward_pre_hooks or each._backward_hooks for each in modules
        )

    def _begin(self, tokens: Tensor, queries: int) -> tuple[Tensor, Tensor]:
        """The residual stream and what the first block's attention finds at the last a = `queries` positions, each (n, a, width)."""
        first = self._chain[0]
        if self._watched() or not cheaper(self.vocabulary, self.in_features, len(tokens), queries):
            hidden = self.tokens(tokens) + self.positions(torch.arange(self.in_features, device=tokens.device))
            return hidden[:, -queries:], first.attend(hidden, queries)
        return begin(first, self.tokens.weight, self.positions.weight, tokens, queries)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (n, c) of the tokens (n, t), whole numbers below `vocabulary`.

        Raises:
            ParameterError: tokens of another shape, or that are not whole numbers.
        """
        if tokens.ndim != 2 or tokens.shape[1] != self.in_features or tokens.is_floating_point():
            raise ParameterError(
                f"`tokens` must be whole numbers (n, {self.in_features}), got {tokens.dtype} of shape {tuple(tokens.shape)}"
            )
        *inner, last = self._chain
        hidden, attended = self._begin(tokens, self.in_features if inner else 1)
        for block, following in pairwise(self._chain):
            hidden = block(hidden, attended)
            queries = 1 if following is last else self.in_features
            hidden, attended = hidden[:, -queries:], following.attend(hidden, queries)
        return self.head(self.norm(last(hidden[:, 0], attended[:, 0])))
