"""The strings and labels of the random hierarchy task against a grammar in plain Python that is parsed from the string upwards."""

import numpy as np
import pytest
import torch
from hierarchy_grammar import grammar, parse, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from richlearn.errors import ParameterError
from richlearn.tasks import RandomHierarchy

SMALL = {"num_features": 5, "num_classes": 3, "num_synonyms": 2, "train_size": 40, "test_size": 30}


def small(**changes):
    return RandomHierarchy(**{**SMALL, **changes})


@pytest.fixture(scope="module")
def everything():
    """All strings and labels of the protocol."""
    return RandomHierarchy().decode(torch.arange(131_072))


@pytest.mark.parametrize(
    ("index", "string", "label"), [(0, 54547167, 0), (12345, 64374732, 0), (65535, 60376037, 3), (131071, 37353735, 7)]
)
def test_golden_strings(index, string, label):
    strings, labels = RandomHierarchy(8, 8, 4, 2, 3, 0).decode(torch.tensor([index]))
    assert strings.tolist() == [[int(digit) for digit in str(string)]]
    assert labels.tolist() == [label]


def test_every_string_of_the_protocol_parses_to_its_class_and_number(everything):
    levels = grammar(8, 8, 4, 2, 3, 0)
    parsed = [parse(string, levels, 4, 2) for string in everything[0].tolist()]
    assert parsed == list(zip(everything[1].tolist(), range(131_072), strict=True))


def test_every_string_of_the_protocol_is_unique(everything):
    assert len(rows(everything[0])) == 131_072


def test_classes_are_balanced(everything):
    assert everything[1].bincount().tolist() == [131_072 // 8] * 8


def test_decoding_needs_no_order_and_no_company(everything):
    picked = torch.tensor([131_071, 7, 7, 50_000])
    strings, labels = RandomHierarchy().decode(picked)
    assert torch.equal(strings, everything[0][picked])
    assert torch.equal(labels, everything[1][picked])


@st.composite
def sizes(draw):
    v, s = draw(st.integers(2, 12)), draw(st.integers(1, 3))
    depth = draw(st.integers(1, 4 if s < 3 else 2))
    choices = sum(s**level for level in range(depth))
    room = v**s if depth == 1 else v ** (s - 1)
    m = draw(st.integers(1, max(1, min(room, 4, int(1e12 ** (1 / choices))))))
    return v, draw(st.integers(1, max(1, min(v**s // m, 20)))), m, s, depth, draw(st.integers(0, 1000))


@given(sizes(), st.data())
@settings(max_examples=150, deadline=None)
def test_any_sizes_agree_with_the_parser(parameters, data):
    task = RandomHierarchy(*parameters)
    v, n_c, m, s, depth, _ = parameters
    indices = data.draw(st.lists(st.integers(0, task.num_data - 1), min_size=1, max_size=30))
    strings, labels = task.decode(torch.tensor(indices))
    levels = grammar(*parameters)
    assert [parse(string, levels, m, s) for string in strings.tolist()] == list(zip(labels.tolist(), indices, strict=True))
    assert strings.shape == (len(indices), s**depth)
    assert task.num_data == n_c * m ** sum(s**level for level in range(depth))
    assert task.in_features == v * s**depth


@pytest.mark.parametrize("parameters", [(3, 2, 2, 3, 2), (4, 7, 2, 2, 1), (2, 2, 2, 2, 4), (6, 3, 2, 2, 3), (5, 5, 1, 1, 3)])
def test_all_strings_of_other_sizes_are_unique_and_balanced(parameters):
    task = RandomHierarchy(*parameters)
    strings, labels = task.decode(torch.arange(task.num_data))
    assert len(rows(strings)) == task.num_data
    assert labels.bincount().tolist() == [task.num_data // parameters[1]] * parameters[1]


def test_rules_are_tuples_by_symbol_and_choice():
    task, levels = small(), grammar(5, 3, 2, 2, 3, 0)
    for table, level in zip(task.rules, levels, strict=True):
        assert all(tuple(table[symbol, choice].tolist()) == each for each, (symbol, choice) in level.items())


def test_no_tuple_belongs_to_two_symbols():
    for table in RandomHierarchy(8, 8, 8, 2, 3, seed=3).rules:
        assert len(rows(table.reshape(-1, 2))) == 64


def test_an_absent_symbol_has_no_rules():
    task = RandomHierarchy(20, 2, 2, 2, 2)
    absent = sorted(set(range(20)) - set(task.rules[0].flatten().tolist()))
    assert len(absent) >= 12
    assert (task.rules[1][absent] == -1).all()


def test_the_number_of_data_is_exact_up_to_the_largest_index():
    task = RandomHierarchy(2, 1, 2, 2, 5)
    assert task.num_data == 2**31
    assert RandomHierarchy(16, 8, 8, 2, 4).num_data == 8**16
    last = RandomHierarchy(4, 4, 4, 4, 3)
    assert last.num_data == 4**22
    strings, labels = last.decode(torch.tensor([4**22 - 1]))
    assert parse(strings[0].tolist(), grammar(4, 4, 4, 4, 3, 0), 4, 4) == (3, 4**22 - 1) == (int(labels), 4**22 - 1)


def test_the_sample_complexity_of_theory():
    assert RandomHierarchy().theory_sample_complexity == 8 * 4**3
    assert small(depth=2).theory_sample_complexity == 3 * 2**2


@pytest.mark.parametrize("name", ["num_features", "num_classes", "num_synonyms", "tuple_size", "depth", "train_size", "test_size"])
@pytest.mark.parametrize("value", [0, 2.0])
def test_a_size_must_be_a_whole_number(name, value):
    with pytest.raises(ParameterError, match=f"`{name}` must be a whole number ≥ 1, got {value}"):
        small(**{name: value})


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((8, 8, True, 2, 3), "`num_synonyms` must be a whole number ≥ 1, got True"),
        ((8, 17, 4, 2, 3), r"`num_classes` · `num_synonyms` must be at most 8 \*\* 2 = 64, the number of tuples, got 17 · 4"),
        ((8, 2, 9, 2, 3), r"`num_synonyms` must be at most `num_features` \*\* \(`tuple_size` − 1\) = 8 if `depth` > 1, got 9"),
        ((8, 2, 2, 1, 2), r"`num_synonyms` must be at most .* = 1 if `depth` > 1, got 2"),
        ((8, 8, 4, 8, 1), r"`num_features` \*\* `tuple_size` must be at most 10,000,000, got 8 \*\* 8"),
        ((2, 2, 2, 10**9, 1), r"`num_features` \*\* `tuple_size` must be at most 10,000,000, got 2 \*\* 1000000000"),
        ((2, 2, 1, 2, 24), r"`tuple_size` \*\* `depth` must be at most 10,000,000, the length of a string, got 2 \*\* 24"),
        ((8, 8, 4, 2, 5), r"`depth`, `num_synonyms` or `tuple_size` is too large: 8·4\^31 data have no index below 2\^63"),
        ((8, 8, 4, 2, 20), r"is too large: 8·4\^1048575 data have no index below 2\^63"),
    ],
)
def test_impossible_sizes_name_the_bound(sizes, message):
    with pytest.raises(ParameterError, match=message):
        RandomHierarchy(*sizes)


def test_the_longest_string_and_the_most_tuples_of_one_symbol():
    assert RandomHierarchy(2, 1, 1, 10, 7).in_features == 2 * 10**7
    assert RandomHierarchy(2, 2, 2, 2, 2).num_data == 2 * 2**3


def test_one_level_may_have_more_synonyms_than_a_deeper_one():
    assert RandomHierarchy(4, 2, 8, 2, 1).num_data == 16


@pytest.mark.parametrize(
    ("indices", "got"),
    [
        (torch.tensor([3, 384]), "got 384"),
        (torch.tensor([-1]), "got -1"),
        (torch.tensor([1.0]), r"got torch.float32 of shape \(1,\)"),
        (torch.tensor([True]), r"got torch.bool of shape \(1,\)"),
        (torch.tensor([[1]]), r"got torch.int64 of shape \(1, 1\)"),
        (["x"], r"got \['x'\]"),
        ([2**64], f"got .{2**64}"),
    ],
)
def test_indices_must_be_numbers_of_data(indices, got):
    with pytest.raises(ParameterError, match=rf"`indices` must be whole numbers in \[0, 384\), shape \(n,\), {got}"):
        small().decode(indices)


def test_indices_may_be_a_list_an_array_or_none_at_all():
    task = small()
    strings, labels = task.decode(torch.tensor([5, 6]))
    for indices in ([5, 6], np.array([5, 6], dtype=np.int32)):
        assert torch.equal(task.decode(indices)[0], strings)
    assert [part.shape for part in task.decode(torch.arange(0))] == [(0, 8), (0,)]
    assert labels.dtype == torch.int64
