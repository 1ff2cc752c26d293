"""µP: updates of the function that do not depend on width."""

import pytest
import torch
from torch import nn

from richlearn.errors import NotApplicable, ParameterError
from richlearn.networks import MLP
from richlearn.schemes import MuP, Standard

X = torch.randn(16, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Y = torch.randn(16, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def _movement(scheme, width, optimizer, seed):
    """Size of the change of the outputs and of the last hidden layer over three steps."""
    network = MLP(10, 1, width=width, depth=2).double()
    multipliers = scheme.apply(network, torch.Generator().manual_seed(seed), optimizer=optimizer)
    make, lr = (torch.optim.SGD, 0.05) if optimizer == "sgd" else (torch.optim.Adam, 0.003)
    steps = make([{"params": [p], "lr": lr * multipliers.lr.get(name, 1.0)} for name, p in network.named_parameters()])
    before = network(X).detach(), network.layers[:4](X).detach()
    for _ in range(3):
        steps.zero_grad()
        nn.functional.mse_loss(network(X), Y).backward()
        steps.step()
    after = network(X).detach(), network.layers[:4](X).detach()
    return torch.tensor([float((b - a).square().mean().sqrt()) for a, b in zip(before, after, strict=True)])


def _growth(scheme, optimizer):
    """Movement at width 512 over movement at width 32, of outputs and hidden layer, over seeds."""
    narrow, wide = (torch.stack([_movement(scheme, w, optimizer, s) for s in range(4)]).mean(0) for w in (32, 512))
    return wide / narrow


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_movement_does_not_depend_on_width(optimizer):
    growth = _growth(MuP(base_width=32), optimizer)
    assert bool(((growth > 0.5) & (growth < 2)).all()), growth


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_movement_under_the_standard_scheme_grows_with_width(optimizer):
    assert float(_growth(Standard(), optimizer)[0]) > 3


@pytest.mark.parametrize(
    ("optimizer", "first", "hidden", "readout", "readout_bias"), [("sgd", 4.0, 1.0, 0.25, 1.0), ("adam", 1.0, 0.25, 0.25, 1.0)]
)
def test_rates_are_those_of_table_3(optimizer, first, hidden, readout, readout_bias):
    lr = MuP(base_width=16).apply(MLP(10, 3, width=64, depth=2), torch.Generator(), optimizer=optimizer).lr
    assert (lr["layers.0.weight"], lr["layers.2.weight"], lr["layers.4.weight"]) == (first, hidden, readout)
    assert lr["layers.2.bias"] == first
    assert lr.get("layers.4.bias", 1.0) == readout_bias


def test_the_readout_starts_smaller_than_its_fan_in_says():
    network = MLP(10, 50, width=400, depth=1)
    MuP(base_width=100).apply(network, torch.Generator())
    assert float(network.layers[2].weight.detach().std()) == pytest.approx(400**-0.5 / 2, rel=0.05)


def test_at_the_base_width_all_factors_are_one():
    multipliers = MuP(base_width=64).apply(MLP(10, 1), torch.Generator(), optimizer="adamw")
    assert {*multipliers.lr.values(), *multipliers.weight_decay.values(), *multipliers.eps.values()} == {1.0}


def test_rate_times_decay_does_not_depend_on_width():
    multipliers = MuP(base_width=16).apply(MLP(10, 1), torch.Generator(), optimizer="adamw")
    assert all(rate * multipliers.weight_decay[name] == 1.0 for name, rate in multipliers.lr.items())


def test_mup_checks_its_parameter_and_its_network():
    with pytest.raises(ParameterError, match="`base_width` must be positive"):
        MuP(base_width=0)
    with pytest.raises(NotApplicable, match="`mup` needs a first layer and a readout of their own"):
        MuP().apply(nn.Linear(3, 1), torch.Generator())


@pytest.mark.parametrize(("optimizer", "lr", "eps"), [("sgd", 4.0, None), ("adam", 1.0, 0.25)])
def test_gains_of_normalisation_scale_as_biases_do(optimizer, lr, eps):
    network = nn.Sequential(nn.Linear(3, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 1))
    found = MuP(base_width=16).apply(network, torch.Generator(), optimizer=optimizer)
    assert found.lr["1.weight"] == found.lr["1.bias"] == found.lr["0.bias"] == lr
    assert found.eps.get("1.weight") == eps
