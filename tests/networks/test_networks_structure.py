"""First layer, readout, biases and pairs of any network."""

import pytest
import torch
from torch import nn

from richlearn.errors import NotApplicable, ParameterError
from richlearn.networks import MLP, Pair, TwoLayer, find
from richlearn.schemes.contract import default_cases


class _Backwards(nn.Module):
    """Registered in the opposite order of its use."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(4, 2)
        self.act = nn.ReLU()
        self.start = nn.Linear(3, 4)

    def forward(self, x):
        return self.last(self.act(self.start(x)))


class _Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(x)))


class _Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.act, self.b = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)

    def forward(self, x):
        hidden = self.a(x)
        return self.b(self.act(hidden)) + hidden


class _TwoReaders(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x):
        hidden = self.a(x).relu()
        return self.b(hidden) + self.c(hidden)


def _case(name):
    return next(case for case in default_cases() if case.name == name)


def test_mlp_has_a_pair_for_every_hidden_layer():
    structure = find(MLP(5, 2, width=4, depth=2))
    assert structure.first == ("layers.0.weight",)
    assert structure.readout == ("layers.4.weight", "layers.4.bias")
    assert structure.biases == ("layers.0.bias", "layers.2.bias")
    assert structure.pairs[1] == Pair("layers.2.weight", "layers.2.bias", "layers.4.weight", 1.0)
    assert structure.homogeneous


@pytest.mark.parametrize("activation", ["gelu", "tanh"])
def test_other_activations_break_the_pairs(activation):
    assert find(TwoLayer(5, 1, activation=activation)).pairs == ()


def test_order_of_use_wins_over_order_of_registration():
    structure = find(_Backwards(), torch.zeros(2, 3))
    assert structure.first == ("start.weight",)
    assert structure.readout == ("last.weight", "last.bias")
    assert structure.pairs == (Pair("start.weight", "start.bias", "last.weight"),)


def test_without_a_sample_that_fits_the_order_of_registration_serves():
    structure = find(_Backwards())
    assert (structure.first, structure.pairs) == (("last.weight",), ())


def test_what_happens_between_modules_is_seen():
    assert find(_Functional(), torch.zeros(1, 3)).pairs == (Pair("fc1.weight", "fc1.bias", "fc2.weight"),)
    assert find(_Functional()).homogeneous
    assert find(_Residual(), torch.zeros(1, 4)).pairs == ()


def test_pooling_keeps_the_pair_and_groups_or_a_second_reader_leave_none():
    def build(pool, groups):
        return nn.Sequential(nn.Conv1d(1, 4, 1), nn.ReLU(), pool, nn.Conv1d(4, 2, 1, groups=groups))

    x = torch.zeros(1, 1, 4)
    assert find(build(nn.MaxPool1d(2), 1), x).pairs == (Pair("0.weight", "0.bias", "3.weight"),)
    assert find(build(nn.MaxPool1d(2), 2), x).pairs == ()
    assert find(_TwoReaders(), torch.zeros(1, 3)).pairs == ()


def test_units_behind_their_positions_own_a_column_for_each():
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6, 1))
    (pair,) = find(network, torch.zeros(1, 3, 2)).pairs
    assert pair == Pair("0.weight", "0.bias", "3.weight", outer=3)
    torch.testing.assert_close(pair.squared_norms(dict(network.named_parameters()))[1], network[3].weight.view(3, 2).square().sum(0))


def test_a_weight_that_reads_two_layers_side_by_side_is_in_no_pair():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 2), nn.Linear(3, 2), nn.Linear(4, 1)

        def forward(self, x):
            return self.c(torch.cat([self.a(x), self.b(x)], -1).relu())

    assert find(Network(), torch.zeros(1, 3)).pairs == ()


def test_a_weight_whose_rows_are_the_units_is_no_pairs_outgoing_one():
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Parameter(torch.ones(4, 4))

        def forward(self, x):
            return self.first(x).relu() @ self.last

    assert find(Network(), torch.zeros(1, 3)).pairs == ()


def test_a_network_declares_what_cannot_be_seen():
    network = _Functional()
    network.homogeneous_pairs = [("fc1", "fc2")]
    network.first_layer, network.readout = ["fc2.weight"], "fc1"
    structure = find(network)
    assert structure.first == ("fc2.weight",)
    assert structure.readout == ("fc1.weight", "fc1.bias")
    assert structure.pairs == (Pair("fc1.weight", "fc1.bias", "fc2.weight"),)


def test_an_attribute_that_is_the_module_itself_counts():
    network = _Functional()
    network.readout = network.fc2
    assert find(network).readout == ("fc2.weight", "fc2.bias")


def test_a_method_called_readout_is_no_declaration():
    class Network(_Functional):
        def readout(self):
            return None

    assert find(Network()).readout == ("fc2.weight", "fc2.bias")


def test_a_wrong_declaration_names_the_nearest():
    network = _Functional()
    network.first_layer = "fc3"
    with pytest.raises(ParameterError, match="`first_layer` of network `_Functional` names `fc3`, which holds no parameter; did you mean"):
        find(network)
    del network.first_layer
    network.homogeneous_pairs = [("fc1", "fc9")]
    with pytest.raises(ParameterError, match="`homogeneous_pairs` names `fc9`, which is no weight layer; did you mean"):
        find(network)


def test_embeddings_are_the_first_layer_and_norms_are_nothing():
    case = _case("embeddings and attention")
    structure = find(case.build(), case.batch)
    assert structure.first == ("tokens.weight", "positions.weight")
    assert structure.readout == ("out.weight", "out.bias")
    assert structure.biases == ("attention.in_proj_bias", "attention.out_proj.bias")


def test_layer_norm_breaks_the_pair_beside_it():
    case = _case("LayerNorm in a chain")
    structure = find(case.build())
    assert structure.pairs == ()
    assert "1.bias" not in structure.biases


def test_a_convolutions_unit_owns_a_block_of_the_flattened_input():
    network = _case("convolutions").build()
    pair = find(network).pairs[1]
    incoming, outgoing = pair.squared_norms(dict(network.named_parameters()))
    expected = network[5].weight.view(3, 4, 4)[:, 2].square().sum()
    torch.testing.assert_close(outgoing[2], expected)
    torch.testing.assert_close(incoming[2], network[2].weight[2].square().sum() + network[2].bias[2] ** 2)


def test_a_tied_weight_is_first_layer_and_readout():
    network = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
    network[2].weight = network[0].weight
    structure = find(network)
    assert not structure.separate
    assert structure.pairs == ()


def test_a_trace_leaves_the_network_as_it_was():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1))
    stream = torch.get_rng_state()
    find(network, torch.randn(8, 3, generator=torch.Generator()))
    assert network[1].num_batches_tracked == 0
    assert all(module.training for module in network.modules())
    assert torch.equal(stream, torch.get_rng_state())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_a_network_without_weights_is_not_applicable():
    with pytest.raises(NotApplicable, match="network `LayerNorm` has no weight layer"):
        find(nn.LayerNorm(3))
