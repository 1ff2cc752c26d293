"""Modular arithmetic: every equation is right, and the split is one permutation."""

import pytest
import torch

from richlearn.errors import ParameterError
from richlearn.tasks import ModularArithmetic
from richlearn.tasks.modular_arithmetic import OPERATIONS

RESULT = {
    "addition": lambda x, y, p: (x + y) % p,
    "subtraction": lambda x, y, p: (x - y) % p,
    "multiplication": lambda x, y, p: (x * y) % p,
    "division": lambda x, y, p: x * pow(y, -1, p) % p,  # Python's modular inverse
    "x2_plus_y2": lambda x, y, p: (pow(x, 2, p) + pow(y, 2, p)) % p,
    "x3_plus_xy": lambda x, y, p: (pow(x, 3, p) + x * y) % p,
}


@pytest.mark.parametrize("prime", [2, 3, 97])
@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_every_equation_is_right(operation, prime):
    tokens, labels = ModularArithmetic(prime=prime, operation=operation, train_share=0.5).equations()
    for (x, _, y, _), z in zip(tokens.tolist(), labels.tolist(), strict=True):
        assert z == RESULT[operation](x, y, prime)


@pytest.mark.parametrize("operation", list(OPERATIONS))
def test_every_pair_of_numbers_occurs_once(operation):
    tokens, _ = ModularArithmetic(prime=11, operation=operation).equations()
    pairs = {(x, y) for x, _, y, _ in tokens.tolist()}
    assert pairs == {(x, y) for x in range(11) for y in range(operation == "division", 11)}
    assert len(tokens) == len(pairs)


def test_the_paper_s_division_has_its_numbers_of_equations():
    task = ModularArithmetic()
    assert (len(task.train.inputs), len(task.test.inputs), task.in_features, task.out_features) == (4656, 4656, 4, 97)


def test_training_and_test_set_are_parts_of_all_equations():
    task = ModularArithmetic(prime=13, operation="addition", train_share=0.3)
    everything = torch.cat([task.train.inputs, task.test.inputs])
    assert len(task.train.inputs) == round(0.3 * 169)
    assert sorted(everything.tolist()) == sorted(task.equations()[0].tolist())


def test_labels_stay_with_their_equations():
    task = ModularArithmetic(prime=13)
    for split in (task.train, task.test):
        for (x, _, y, _), z in zip(split.inputs.tolist(), split.targets.tolist(), strict=True):
            assert z * y % 13 == x


def test_the_seed_fixes_the_split():
    first, again, other = (ModularArithmetic(prime=13, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert not torch.equal(first.train.inputs, other.train.inputs)


def test_tokens_and_split_are_the_same_in_every_precision():
    single, double = (ModularArithmetic(prime=13, dtype=dtype) for dtype in (torch.float32, torch.float64))
    assert single.train.inputs.dtype == single.train.targets.dtype == torch.int64
    assert torch.equal(single.train.inputs, double.train.inputs)


def test_a_larger_share_holds_the_smaller_one():
    small, large = (ModularArithmetic(prime=13, train_share=share) for share in (0.3, 0.6))
    assert torch.equal(large.train.inputs[: len(small.train.inputs)], small.train.inputs)


def test_the_vocabulary_reads_an_equation():
    task = ModularArithmetic(prime=5)
    tokens, labels = task.equations()
    words = [
        " ".join([*(task.vocabulary[token] for token in row), str(z)]) for row, z in zip(tokens.tolist(), labels.tolist(), strict=True)
    ]
    assert len(task.vocabulary) == 7
    assert {"4 / 3 = 3", "0 / 1 = 0"} <= set(words)


def test_the_order_of_the_equations_is_fixed():
    tokens, labels = ModularArithmetic(prime=3, operation="subtraction").equations()
    assert tokens[:4].tolist() == [[0, 3, 0, 4], [0, 3, 1, 4], [0, 3, 2, 4], [1, 3, 0, 4]]
    assert labels[:4].tolist() == [0, 2, 1, 1]


def test_guessing_costs_the_logarithm_of_the_number_of_answers():
    assert ModularArithmetic(prime=97).zero_loss() == pytest.approx(4.574710978503383, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prime": 91}, "`prime` must be a prime number below 10,000, got 91"),
        ({"prime": 1}, "`prime` must be a prime number below 10,000, got 1"),
        ({"prime": 97.0}, r"`prime` must be a prime number below 10,000, got 97\.0"),
        ({"operation": "divison"}, "unknown `operation` 'divison'; did you mean `division`?"),
        ({"train_share": 1}, "`train_share` must lie strictly between 0 and 1, got 1"),
        ({"train_share": 0.0}, r"`train_share` must lie strictly between 0 and 1, got 0\.0"),
        ({"train_share": "half"}, "`train_share` must lie strictly between 0 and 1, got 'half'"),
        ({"prime": 3, "train_share": 0.01}, r"`train_share` 0\.01 of 6 equations leaves the training or the test set empty"),
        ({"prime": 3, "train_share": 0.99}, r"`train_share` 0\.99 of 6 equations leaves the training or the test set empty"),
    ],
)
def test_bad_parameters_are_named(options, message):
    with pytest.raises(ParameterError, match=message):
        ModularArithmetic(**options)
