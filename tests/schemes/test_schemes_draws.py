"""Distributions of the classical initialisations."""

import pytest
import torch
from torch import nn

from richlearn.errors import NotApplicable, ParameterError
from richlearn.networks import MLP
from richlearn.schemes import LSUV, Kaiming, Orthogonal, Xavier

BATCH = torch.randn(64, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def _layers(scheme, width=300, dtype=torch.float64, **options):
    network = MLP(40, 10, width=width, depth=2, **options).to(dtype)
    scheme.apply(network, torch.Generator().manual_seed(0), batch=BATCH)
    return [module for module in network.layers if isinstance(module, nn.Linear)]


def test_kaiming_has_variance_two_over_fan_in():
    for layer in _layers(Kaiming()):
        assert float(layer.weight.detach().var()) == pytest.approx(2 / layer.in_features, rel=0.1)
        assert not layer.bias.any()


def test_xavier_is_uniform_with_variance_two_over_both_fans():
    for layer in _layers(Xavier()):
        bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
        assert float(layer.weight.detach().abs().max()) <= bound
        assert float(layer.weight.detach().var()) == pytest.approx(bound**2 / 3, rel=0.1)


def test_orthogonal_has_unit_singular_values():
    for layer in _layers(Orthogonal(), width=30):
        values = torch.linalg.svdvals(layer.weight.detach())
        torch.testing.assert_close(values, torch.ones_like(values))


def test_float32_is_the_rounded_float64_draw():
    for single, double in zip(_layers(Kaiming(), dtype=torch.float32), _layers(Kaiming()), strict=True):
        assert torch.equal(single.weight, double.weight.float())


def test_lookup_tables_stay_standard_normal():
    network = nn.Sequential(nn.Embedding(500, 40), nn.Linear(40, 3))
    Kaiming().apply(network, torch.Generator())
    assert float(network[0].weight.detach().std()) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_lsuv_gives_every_layer_unit_variance_on_the_batch(activation):
    layers, hidden = _layers(LSUV(tolerance=1e-6), width=30, activation=activation), BATCH
    act = torch.relu if activation == "relu" else torch.tanh
    for layer in layers:
        out = layer(hidden)
        assert float(out.detach().var(correction=0)) == pytest.approx(1.0, abs=1e-6)
        hidden = act(out)


def test_lsuv_keeps_directions_of_the_orthogonal_draw():
    for scaled, base in zip(_layers(LSUV(), width=30), _layers(Orthogonal(), width=30), strict=True):
        ratio = scaled.weight / base.weight
        torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))


def test_lsuv_says_that_it_needs_a_batch():
    with pytest.raises(ParameterError, match="`lsuv` looks at data: it needs `batch`"):
        LSUV().apply(MLP(4, 1), torch.Generator())


def test_lsuv_names_the_layer_that_does_not_vary():
    with pytest.raises(NotApplicable, match=r"`lsuv` cannot scale `layers.0.weight`: its output does not vary on the batch of 3 inputs"):
        LSUV().apply(MLP(4, 1), torch.Generator(), batch=torch.zeros(3, 4))


@pytest.mark.parametrize("parameters", [{"tolerance": 0.0}, {"max_iterations": -1}, {"max_iterations": 0.5}])
def test_lsuv_checks_its_parameters(parameters):
    with pytest.raises(ParameterError, match=r"`(tolerance|max_iterations)` must be (positive|a whole number)"):
        LSUV(**parameters)


def test_lsuv_normalises_a_network_that_is_one_layer():
    network = nn.Linear(40, 3).double()
    LSUV(tolerance=1e-6).apply(network, torch.Generator(), batch=BATCH)
    assert float(network(BATCH).detach().var(correction=0)) == pytest.approx(1.0, abs=1e-6)
