"""The starts of the theory's benchmarks: one unit with given β₀ and δ, and isotropic deep linear networks."""

from itertools import pairwise

import pytest
import torch

from richlearn.errors import NotApplicable, ParameterError
from richlearn.networks import MLP, Linear
from richlearn.schemes import Isotropic, SingleUnit


def _weights(scheme, network, seed=0):
    scheme.apply(network.double(), torch.Generator().manual_seed(seed))
    return [p.detach() for p in network.parameters()]


@pytest.mark.parametrize("delta", [-4.0, -1e-9, 0.0, 1e-9, 1e6])
def test_one_unit_has_the_function_and_the_balance_that_were_asked_for(delta):
    w, a = _weights(SingleUnit(delta=delta, scale=0.5, angle=180), Linear(3, 1))
    torch.testing.assert_close(a * w, torch.tensor([[-0.5, 0.0, 0.0]], dtype=torch.float64), atol=1e-15, rtol=1e-14)
    assert float(a.square() - w.square().sum()) == pytest.approx(delta, rel=1e-12, abs=1e-15)


def test_the_angle_turns_from_the_first_input_to_the_second():
    w, a = _weights(SingleUnit(angle=90), Linear(2, 1))
    torch.testing.assert_close(a * w, torch.tensor([[0.0, 1.0]], dtype=torch.float64), atol=1e-15, rtol=0)


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
@pytest.mark.parametrize("depth", [1, 3])
def test_isotropic_layers_are_balanced_but_the_last(epsilon, depth):
    *inner, last = _weights(Isotropic(scale=0.7, epsilon=epsilon), Linear(4, 1, width=4, depth=depth))
    product = torch.linalg.multi_dot([last, *reversed(inner)]) if len(inner) > 1 else last @ inner[0]
    assert float(product.norm()) == pytest.approx(0.7)
    torch.testing.assert_close(last.T @ last - inner[-1] @ inner[-1].T, -epsilon * torch.eye(4, dtype=torch.float64), atol=1e-12, rtol=0)
    for below, above in pairwise(inner):
        torch.testing.assert_close(above.T @ above, below @ below.T, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("scheme", "network", "message"),
    [
        (SingleUnit(), Linear(1, 1), r"needs weights of shape \(1, d ≥ 2\) and \(1, 1\)"),
        (SingleUnit(), Linear(3, 1, width=2), r"needs weights of shape \(1, d ≥ 2\) and \(1, 1\)"),
        (SingleUnit(), MLP(3, 1, width=1, depth=1, activation="linear", bias=True), "without biases"),
        (Isotropic(), Linear(4, 1, width=3), r"needs square hidden layers, one output and no biases, got weights of shapes \[\(3, 4\)"),
        (Isotropic(), Linear(4, 2, width=4), "needs square hidden layers, one output and no biases"),
    ],
)
def test_other_networks_are_refused(scheme, network, message):
    with pytest.raises(NotApplicable, match=message):
        _weights(scheme, network)


def test_parameters_out_of_range_are_refused():
    with pytest.raises(ParameterError, match="`scale` must be positive"):
        SingleUnit(scale=0)
    with pytest.raises(ParameterError, match="`epsilon` must be at least 0"):
        Isotropic(epsilon=-1)
