"""Balanced units: δ = 0 and the function kept."""

import pytest
import torch
from torch import nn

from richlearn.errors import NotApplicable
from richlearn.networks import MLP, find
from richlearn.schemes import Balanced, Standard, _common
from richlearn.schemes import balanced as module
from richlearn.schemes.balanced import balance


def _imbalance(network, x=None):
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    norms = [pair.squared_norms(parameters) for pair in find(network, x).pairs]
    return max(float(((out - into).abs() / (out + into)).max()) for into, out in norms)


def _pair_of_networks(build, seed=0):
    networks = build().double(), build().double()
    for scheme, network in zip((Balanced(), Standard()), networks, strict=True):
        scheme.apply(network, torch.Generator().manual_seed(seed))
    return networks


@pytest.mark.parametrize("depth", [1, 3, 6])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "linear"])
def test_balanced_keeps_the_function_and_reaches_zero(depth, activation):
    network, base = _pair_of_networks(lambda: MLP(20, 3, width=16, depth=depth, activation=activation))
    x = torch.randn(9, 20, dtype=torch.float64)
    assert _imbalance(base) > 0.1
    assert _imbalance(network) < 1e-6
    torch.testing.assert_close(network(x), base(x), rtol=1e-10, atol=1e-12)


def test_balanced_serves_convolutions():
    def build():
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))

    network, base = _pair_of_networks(build)
    x = torch.randn(5, 1, 6, 6, dtype=torch.float64)
    assert _imbalance(network) < 1e-6
    torch.testing.assert_close(network(x), base(x), rtol=1e-10, atol=1e-12)


def test_balanced_serves_units_behind_their_positions():
    x, networks = torch.randn(5, 3, 2, dtype=torch.float64), []
    for scheme in (Balanced(), Standard()):
        networks.append(nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)).double())
        scheme.apply(networks[-1], torch.Generator().manual_seed(0), batch=x)
    assert _imbalance(networks[0], x) < 1e-6 < 0.1 < _imbalance(networks[1], x)
    torch.testing.assert_close(networks[0](x), networks[1](x), rtol=1e-10, atol=1e-12)


def test_a_unit_without_outgoing_weight_is_left_alone():
    network = MLP(4, 1, width=3, depth=1, bias=False).double()
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    parameters["layers.2.weight"][0, 1] = 0.0
    untouched = parameters["layers.0.weight"][1].clone()
    balance(find(network).pairs, parameters)
    assert torch.equal(parameters["layers.0.weight"][1], untouched)
    assert all(bool(p.isfinite().all()) for p in parameters.values())


@pytest.mark.parametrize("activation", ["gelu", "tanh"])
def test_balanced_names_the_activation_it_cannot_serve(activation):
    with pytest.raises(NotApplicable, match=f"`balanced` needs positively homogeneous hidden layers .* activation `{activation}`"):
        Balanced().apply(MLP(4, 1, activation=activation), torch.Generator())


def test_balanced_says_when_it_does_not_arrive(monkeypatch):
    monkeypatch.setattr(module, "MAX_SWEEPS", 1)
    with pytest.raises(NotApplicable, match=r"did not reach δ = 0 to 1e-06 within 1 sweeps over 3 hidden layers"):
        Balanced().apply(MLP(4, 1), torch.Generator())


def test_one_weight_layer_is_not_homogeneous():
    structure = find(nn.Linear(3, 1))
    with pytest.raises(NotApplicable, match="`Linear` has 1 weight layers with 0 homogeneous pairs"):
        _common.homogeneous(nn.Linear(3, 1), structure, "balanced")
