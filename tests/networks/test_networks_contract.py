"""The contract of networks, and that it finds what it shall find."""

import pytest
import torch
from torch import nn

from richlearn.catalog import NETWORKS
from richlearn.networks.contract import check


class _Chain(nn.Module):
    """A sound user's network; each subclass breaks one thing."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(in_features, 8), nn.ReLU(), nn.Linear(8, out_features))

    def forward(self, x):
        return self.layers(x)


class _Noisy(_Chain):
    def forward(self, x):
        return self.layers(x) + torch.randn(1)


class _Flat(_Chain):
    def forward(self, x):
        return self.layers(x).flatten()


class _Single(_Chain):
    def forward(self, x):
        return self.layers(x.float() if self.layers[0].weight.dtype == torch.float32 else x).float()


class _Branching(_Chain):
    def forward(self, x):
        y = self.layers(x)
        return y if y.sum() > 0 else -y


class _Empty(nn.Module):
    def __init__(self, in_features, out_features):
        super().__init__()


class _NoArguments(nn.Module):
    pass


@pytest.mark.parametrize("name", list(NETWORKS.own))
def test_every_network_of_the_suite_keeps_the_contract(name):
    assert check(NETWORKS.load(name)) == []


def test_a_users_network_keeps_the_contract():
    assert check(_Chain) == []


@pytest.mark.parametrize(
    ("network", "finding"),
    [
        (_Noisy, "two calls on the same inputs differ"),
        (_Flat, r"must give outputs \(4, 3\), got \(12,\)"),
        (_Single, "in float64 it returns torch.float32"),
        (_Branching, "stacking, in_features=6"),
        (_Empty, "it has no parameters"),
        (_NoArguments, "construction, in_features=6, out_features=3: TypeError"),
    ],
)
def test_a_broken_network_is_found(network, finding):
    with pytest.raises(AssertionError, match=finding):
        raise AssertionError("\n".join(check(network)))


def test_a_network_that_draws_elsewhere_is_found():
    own = torch.Generator()

    class Elsewhere(_Chain):
        def __init__(self, in_features, out_features):
            super().__init__(in_features, out_features)
            nn.init.normal_(self.layers[0].weight, generator=own)

    assert any("two networks built under one torch seed differ" in finding for finding in check(Elsewhere))
