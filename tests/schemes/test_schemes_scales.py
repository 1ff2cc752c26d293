"""Standard, and the schemes that rescale it."""

import pytest
import torch
from torch import nn

from richlearn.errors import NotApplicable, ParameterError
from richlearn.networks import MLP
from richlearn.schemes import Downstream, LayerRates, OverallScale, RelativeScale, Standard, Unscaled, Upstream
from richlearn.seeds import global_stream

X = torch.randn(16, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _initialised(scheme, seed=0, **options):
    network = MLP(6, 3, width=8, depth=2, **options).double()
    return network, scheme.apply(network, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("build", [lambda: MLP(6, 3, width=8), lambda: nn.TransformerEncoderLayer(8, 2, 16)], ids=["mlp", "transformer"])
def test_standard_is_what_building_the_network_anew_draws(build):
    network = build()
    Standard().apply(network, torch.Generator().manual_seed(3))
    with global_stream(torch.Generator().manual_seed(3)):
        rebuilt = build()
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), rebuilt.parameters(), strict=True))


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "linear"])
@pytest.mark.parametrize("alpha", [0.1, 3.0, 100 / 3])
def test_the_function_does_not_depend_on_alpha(activation, alpha):
    network, _ = _initialised(RelativeScale(alpha), activation=activation)
    expected, _ = _initialised(Standard(), activation=activation)
    torch.testing.assert_close(network(X), expected(X), rtol=1e-12, atol=1e-13)


def test_alpha_divides_the_first_layer_and_every_hidden_bias():
    scaled, base = _initialised(RelativeScale(4.0))[0].layers, _initialised(Standard())[0].layers
    assert torch.equal(scaled[0].weight, base[0].weight / 4)
    assert torch.equal(scaled[2].bias, base[2].bias / 4)
    assert torch.equal(scaled[2].weight, base[2].weight)
    assert torch.equal(scaled[4].weight, base[4].weight * 4)
    assert torch.equal(scaled[4].bias, base[4].bias)


@pytest.mark.parametrize(("named", "alpha"), [(Upstream(), 10.0), (Downstream(), 0.1), (Unscaled(), 1.0)])
def test_named_relative_scales(named, alpha):
    network, expected = _initialised(named)[0], _initialised(RelativeScale(alpha))[0]
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), expected.parameters(), strict=True))


def test_overall_scale_multiplies_a_homogeneous_function_once_a_layer():
    network, base = _initialised(OverallScale(0.5), bias=False)[0], _initialised(Standard(), bias=False)[0]
    torch.testing.assert_close(network(X), base(X) * 0.5**3, rtol=1e-12, atol=0)


def test_overall_scale_multiplies_biases_as_their_layer():
    network, base = _initialised(OverallScale(2.0))[0], _initialised(Standard())[0]
    assert all(torch.equal(p, 2 * q) for p, q in zip(network.parameters(), base.parameters(), strict=True))


def test_layer_rates_scale_learning_rates_and_nothing_else():
    network, multipliers = _initialised(LayerRates(first=0.1, readout=5.0))
    base, _ = _initialised(Standard())
    assert all(torch.equal(p, q) for p, q in zip(network.parameters(), base.parameters(), strict=True))
    assert multipliers.lr == {
        **{"layers.0.weight": 0.1, "layers.0.bias": 0.1, "layers.2.weight": 1.0, "layers.2.bias": 1.0},
        **{"layers.4.weight": 5.0, "layers.4.bias": 5.0},
    }
    assert not multipliers.weight_decay


@pytest.mark.parametrize(("scheme", "name"), [(RelativeScale, "alpha"), (OverallScale, "tau"), (LayerRates, "hidden")])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), "1", True])
def test_a_scale_must_be_a_positive_number(scheme, name, value):
    with pytest.raises(ParameterError, match=f"`{name}` must be"):
        scheme(**{name: value})


@pytest.mark.parametrize("scheme", [RelativeScale(2.0), LayerRates(first=2.0)])
def test_one_weight_cannot_be_first_layer_and_readout(scheme):
    with pytest.raises(NotApplicable, match="needs a first layer and a readout of their own, `Linear` has one weight for both"):
        scheme.apply(nn.Linear(4, 2), torch.Generator())
