"""The first block on E[token] + P[position]: what two small tables let it compute once for each row, not for each sample.

W(E[v] + P[j]) = W E[v] + W P[j], so whatever is linear in keys, queries or values is a sum of two look-ups. V tokens, t positions,
n samples; tables E (V, width) and P (t, width).
"""

from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from richlearn.networks._attention import Block, attention


def cheaper(vocabulary: int, positions: int, samples: int, queries: int) -> bool:
    """Whether projecting the tables takes fewer multiply-adds than projecting every position of every sample."""
    return 3 * (vocabulary + positions) < samples * (2 * positions + queries)


def _few_rows(block: Block, vocabulary: int, positions: int) -> bool:
    """Whether a sample's shares, spread over all rows, are fewer numbers than looked up keys, values and their products.

    On one core the two ways take equal time at a ratio of about 1.2 (widths of 32 to 128, 2 to 8 heads).
    """
    return block.heads * (vocabulary + positions) <= 3 * positions * block.key.out_features


def _by_head(rows: Tensor, heads: int) -> Tensor:
    return rows.unflatten(-1, (heads, -1)).transpose(-3, -2)  # head, row, feature


def _scores(block: Block, last: Tensor, rows: Tensor, tokens: Tensor) -> Tensor:
    """Scores (n, t, heads) of the last position, looked up among those of each pair (its token, row)."""
    count = len(last)
    # Both rows of a position bring the keys' bias; softmax sees no constant.
    query, key = _by_head(block.query(last), block.heads), _by_head(block.key(rows), block.heads)
    pairs = ((query / sqrt(query.shape[-1])) @ key.transpose(-1, -2)).permute(1, 2, 0)  # last token, row, head
    of_tokens = F.embedding(tokens[:, -1:] * count + tokens, pairs[:, :count].flatten(0, 1))
    return of_tokens + F.embedding(tokens[:, -1], pairs[:, count:].flatten(1)).unflatten(1, (-1, block.heads))


def _read(block: Block, last: Tensor, table: Tensor, places: Tensor, tokens: Tensor) -> Tensor:
    """Attention of the last position, (n, width): its shares of all tokens (head, n, V), and of all places, times their values.

    A matrix product with the few rows there are is cheaper than moving t values of `width` numbers for every sample.
    """
    shares = _scores(block, last, torch.cat([table, places]), tokens).softmax(1).permute(2, 0, 1)  # head, sample, position
    of_tokens = _by_head(F.linear(table, block.value.weight), block.heads)
    of_places = _by_head(block.value(places), block.heads)
    spread = shares.new_zeros(*shares.shape[:2], len(table)).scatter_add_(2, tokens.expand(block.heads, -1, -1), shares)
    return torch.baddbmm(shares @ of_places, spread, of_tokens).transpose(0, 1).flatten(1)


def begin(block: Block, table: Tensor, places: Tensor, tokens: Tensor, queries: int) -> tuple[Tensor, Tensor]:
    """table[tokens] + places, and what `Block.attend` finds in it, at the last a = `queries` positions: twice (n, a, width)."""
    if queries == 1 and _few_rows(block, len(table), len(places)):
        last = table + places[-1:]
        return F.embedding(tokens[:, -1:], last), _read(block, last, table, places, tokens)[:, None]
    query, key, value = (
        F.embedding(tokens[:, -count:], F.linear(table, layer.weight)) + layer(places[-count:])
        for layer, count in ((block.query, queries), (block.key, len(places)), (block.value, len(places)))
    )
    return F.embedding(tokens[:, -queries:], table) + places[-queries:], attention(query, key, value, block.heads)
