"""Multipliers of learning rate, weight decay and ε."""

import copy
import pickle

import pytest

from richlearn.errors import ParameterError
from richlearn.schemes import Multipliers


def test_a_product_multiplies_name_by_name():
    product = Multipliers(lr={"w": 2.0}, eps={"a": 0.5}) * Multipliers(lr={"w": 3.0, "a": 5.0})
    assert product == Multipliers(lr={"w": 6.0, "a": 5.0}, eps={"a": 0.5})


def test_multipliers_are_read_only_and_independent_of_their_source():
    source = {"w": 2.0}
    multipliers = Multipliers(lr=source)
    source["w"] = 9.0
    assert multipliers.lr["w"] == 2.0
    with pytest.raises(TypeError, match="does not support item assignment"):
        multipliers.lr["w"] = 1.0


def test_multipliers_travel_to_other_processes():
    multipliers = Multipliers(lr={"w": 2.0}, weight_decay={"w": 0.5})
    assert pickle.loads(pickle.dumps(multipliers)) == copy.deepcopy(multipliers) == multipliers


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_must_be_positive_and_finite(factor):
    with pytest.raises(ParameterError, match="the weight_decay multiplier of `w` must be positive and finite"):
        Multipliers(weight_decay={"w": factor})
