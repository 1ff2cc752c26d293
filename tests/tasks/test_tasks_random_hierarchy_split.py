"""What the random hierarchy task draws: inputs, split, and the data of the authors' script."""

import random

import numpy as np
import pytest
import torch
from hierarchy_grammar import grammar, parse, rows

from richlearn.errors import ParameterError
from richlearn.tasks import CROSS_ENTROPY, RandomHierarchy
from richlearn.tasks.random_hierarchy import _distinct

SMALL = {"num_features": 5, "num_classes": 3, "num_synonyms": 2, "train_size": 40, "test_size": 30}


def small(**changes):
    return RandomHierarchy(**{**SMALL, **changes})


def test_drawing_leaves_the_global_streams_alone():
    states = torch.get_rng_state(), random.getstate()
    small().setup()
    small(compatible=True).setup()
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()


def test_inputs_are_one_hot_symbol_major():
    task = small()
    strings, labels = task.decode(task.split_indices()[0])
    one_hot = torch.nn.functional.one_hot(strings, 5)
    assert torch.equal(task.train.inputs, one_hot.transpose(1, 2).reshape(40, 40).float())
    assert torch.equal(task.train.targets, labels)


def test_one_feature_by_hand():
    encoded = small().encode(torch.tensor([[4, 0, 1, 1, 2, 3, 0, 0]]))
    assert encoded.nonzero()[:, 1].tolist() == [0 * 8 + 1, 0 * 8 + 6, 0 * 8 + 7, 1 * 8 + 2, 1 * 8 + 3, 2 * 8 + 4, 3 * 8 + 5, 4 * 8 + 0]


def test_float32_data_are_the_float64_data():
    single, double = small(), small(dtype=torch.float64)
    assert double.train.inputs.dtype == torch.float64
    assert torch.equal(single.train.inputs, double.train.inputs.float())
    assert torch.equal(single.test.targets, double.test.targets)


def test_the_seed_determines_everything():
    first, again, other = small(seed=4), small(seed=4), small(seed=5)
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert torch.equal(first.test.targets, again.test.targets)
    assert not torch.equal(first.rules[0], other.rules[0])
    assert not torch.equal(first.split_indices()[0], other.split_indices()[0])


@pytest.mark.parametrize("fraction", [0.001, 0.01, 0.1, 0.5, 0.8])
@pytest.mark.parametrize("compatible", [False, True])
def test_no_string_is_twice_in_training_or_in_both_parts(fraction, compatible):
    task = RandomHierarchy(train_size=int(fraction * 131_072), seed=1, compatible=compatible)
    train, test = (rows(part.inputs.view(-1, 8, 8).argmax(1)) for part in (task.train, task.test))
    assert (len(train), len(test)) == (int(fraction * 131_072), 26_214)
    assert not train & test


@pytest.mark.parametrize("shape", [(8, 8, 4, 2, 3), (8, 8, 8, 2, 4)])
def test_the_size_of_one_part_leaves_the_others_alone(shape):
    (few, test), (many, same) = (RandomHierarchy(*shape, train_size=size).split_indices() for size in (300, 90_000))
    assert torch.equal(test, same)
    assert torch.equal(few, many[:300])
    assert torch.equal(few, RandomHierarchy(*shape, train_size=300, test_size=40_000).split_indices()[0])


def test_the_split_of_data_too_many_to_permute_has_no_number_twice():
    task = RandomHierarchy(8, 8, 8, 2, 4, train_size=50_000)
    assert task.num_data > 10**13
    train, test = (part.tolist() for part in task.split_indices())
    assert len({*train, *test}) == 76_214


def test_distinct_numbers_are_drawn_until_there_are_enough():
    numbers = _distinct(10, 10, 0).tolist()
    assert sorted(numbers) == list(range(10))
    assert numbers[:4] == _distinct(4, 10, 0).tolist()


@pytest.mark.parametrize("seed", [0, 3])
def test_labels_of_a_split_are_those_of_its_strings(seed):
    task = RandomHierarchy(train_size=500, seed=seed)
    levels = grammar(8, 8, 4, 2, 3, seed)
    strings = task.train.inputs.view(-1, 8, 8).argmax(1).tolist()
    assert [parse(string, levels, 4, 2)[0] for string in strings] == task.train.targets.tolist()


def test_a_random_split_has_every_class_about_equally_often():
    counts = RandomHierarchy(train_size=40_000).train.targets.bincount(minlength=8)
    assert (counts - 5000).abs().max() < 5 * (40_000 * 7 / 64) ** 0.5


def reference_indices(total, train_size, test_size, seed):
    """Training and test data as the authors' script cuts them: a fixed sequence, its end for the test, the rest shuffled by seed."""
    fixed = torch.Generator()
    fixed.manual_seed(0)
    if total < 5e6:
        chosen = torch.randperm(total, generator=fixed).numpy()[: train_size + test_size]
    else:
        found = np.unique(torch.randint(0, total, [2 * (train_size + test_size)], generator=fixed).numpy())
        chosen = found[torch.randperm(len(found), generator=fixed).numpy()][: train_size + test_size]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shuffled = chosen[:-test_size][torch.randperm(train_size).numpy()]
    return shuffled.tolist(), chosen[-test_size:].tolist()


@pytest.mark.parametrize("shape", [(8, 8, 4, 2, 3), (8, 8, 8, 2, 3), (64, 2, 4, 2, 3)])
@pytest.mark.parametrize("seed", [0, 2])
def test_compatible_data_are_those_of_the_authors_script(shape, seed):
    task = RandomHierarchy(*shape, seed=seed, train_size=700, test_size=300, compatible=True)
    train, test = reference_indices(task.num_data, 700, 300, seed)
    # That script ranks the symbols of a level as iteration over a set gives them.
    levels = grammar(*shape, seed=seed, ranked=list)
    strings = [part.inputs.view(-1, shape[0], 8).argmax(1).tolist() for part in (task.train, task.test)]
    parsed = [[parse(string, levels, shape[2], shape[3])[1] for string in part] for part in strings]
    assert parsed == [train, test]


def test_compatible_rules_differ_only_for_absent_symbols_above_eight_features():
    same, other = (8, 8, 4, 2, 3), (64, 2, 4, 2, 3)
    for shape, equal in ((same, True), (other, False)):
        ours, theirs = RandomHierarchy(*shape).rules, RandomHierarchy(*shape, compatible=True).rules
        assert all(map(torch.equal, ours, theirs)) is equal


def test_a_loader_visits_every_sample_once_an_epoch():
    task = small(batch_size=16)
    batches = list(task.train_dataloader())
    assert [len(labels) for _, labels in batches] == [16, 16, 8]
    assert rows(torch.cat([inputs for inputs, _ in batches])) == rows(task.train.inputs)


def test_targets_serve_the_loss():
    task = small()
    assert (task.loss, task.out_features, task.test.targets.dtype) == (CROSS_ENTROPY, 3, torch.int64)
    assert task.zero_loss() == pytest.approx(np.log(3))


def test_more_data_than_there_are_are_refused_when_drawn():
    task = small(train_size=300, test_size=85)
    with pytest.raises(ParameterError, match="`train_size` \\+ `test_size` must be at most P_max = 384, got 300 and 85"):
        task.setup()


def test_all_data_may_be_used():
    train, test = small(train_size=300, test_size=84).split_indices()
    assert sorted([*train.tolist(), *test.tolist()]) == list(range(384))


def test_more_than_half_of_too_many_data_are_refused():
    task = RandomHierarchy(4, 4, 4, 2, 4, train_size=2**33)
    with pytest.raises(ParameterError, match=f"`train_size` and `test_size` must be at most half of P_max = {2**32}"):
        RandomHierarchy(4, 4, 4, 2, 4, train_size=2**32 - 30_000).split_indices()
    with pytest.raises(ParameterError, match="at most P_max"):
        task.split_indices()


def test_compatible_says_when_the_authors_code_finds_too_few():
    task = RandomHierarchy(8, 8, 8, 2, 3, train_size=14_000_000, compatible=True)
    with pytest.raises(
        ParameterError, match=r"`compatible`: the authors' code finds only \d+ of `train_size` \+ `test_size` = 14026214 data"
    ):
        task.split_indices()
