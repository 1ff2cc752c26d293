"""The suite's own networks."""

import pytest
import torch
from torch import nn

from richlearn.errors import ParameterError
from richlearn.networks import MLP, Linear, TwoLayer


def test_mlp_is_its_chain_of_layers():
    network, x = MLP(5, 2, width=7, depth=2, activation="tanh"), torch.randn(3, 5)
    first, second, readout = (m for m in network.layers if isinstance(m, nn.Linear))
    expected = readout(torch.tanh(second(torch.tanh(first(x)))))
    assert torch.equal(network(x), expected)
    assert [tuple(p.shape) for p in network.parameters()] == [(7, 5), (7,), (7, 7), (7,), (2, 7), (2,)]


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "linear", "gelu", "tanh"])
def test_parameter_names_are_the_same_under_every_activation(activation):
    network = MLP(4, 1, width=3, depth=1, activation=activation, bias=False)
    assert [name for name, _ in network.named_parameters()] == ["layers.0.weight", "layers.2.weight"]
    assert network.activation == activation


def test_two_layer_has_the_papers_defaults():
    network = TwoLayer(100, 1)
    assert [tuple(p.shape) for p in network.parameters()] == [(50, 100), (1, 50)]
    assert network.activation == "relu"


def test_linear_of_width_one_is_the_single_neuron():
    network, x = Linear(4, 1), torch.randn(6, 4)
    w, a = (p.detach() for p in network.parameters())
    torch.testing.assert_close(network(x), (x @ w.T) * a)


@pytest.mark.parametrize("name", ["width", "depth"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True])
def test_a_bad_size_is_named(name, value):
    with pytest.raises(ParameterError, match=f"`{name}` must be a whole number of at least 1"):
        MLP(4, 1, **{name: value})


def test_an_unknown_activation_lists_the_nearest():
    with pytest.raises(ParameterError, match=r"unknown `activation` 'rleu'; did you mean `relu`\?"):
        TwoLayer(4, 1, activation="rleu")


def test_bad_feature_counts_are_named():
    with pytest.raises(ParameterError, match="`out_features` must be a whole number"):
        Linear(4, 0)
