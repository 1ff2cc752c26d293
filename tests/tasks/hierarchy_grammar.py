"""Random hierarchy rules as dictionaries of plain Python, and a parser that reads a string from the bottom level upwards."""

import random
from itertools import product


def grammar(v, n_c, m, s, depth, seed, ranked=sorted):
    """For every level, top first, a dict from tuple to (symbol, number of the rule)."""
    source, present, levels = random.Random(seed), list(range(n_c)), []
    for _ in range(depth):
        tuples = list(product(range(v), repeat=s))
        source.shuffle(tuples)
        owners = ranked(set(present))
        level = {tuples[m * rank + choice]: (symbol, choice) for rank, symbol in enumerate(owners) for choice in range(m)}
        rows = {symbol: [x for each, (owner, _) in level.items() if owner == symbol for x in each] for symbol in owners}
        present = [x for symbol in present for x in rows[symbol]]
        levels.append(level)
    return levels


def parse(string, levels, m, s):
    """The class of a string and its number among all data, from the bottom level up."""
    symbols, picked = list(string), []
    for level in reversed(levels):
        found = [level[tuple(symbols[k : k + s])] for k in range(0, len(symbols), s)]
        symbols, picked = [symbol for symbol, _ in found], [choice for _, choice in found] + picked
    (label,), number = symbols, 0
    for choice in picked:
        number = number * m + choice
    return label, label * m ** len(picked) + number


def rows(tensor):
    """The rows of a matrix as a set of tuples."""
    return set(map(tuple, tensor.tolist()))
