"""As many laws as there are: dim θ − dim of the Lie algebra of the gradient fields (Marcotte et al. 2023, 2025)."""

from itertools import pairwise

import pytest
import torch
from conservation_lab import Beside, ChannelsLast, Tokens, counts, generic, inputs, lie_dimension, parameters_of
from torch import nn

from richlearn.conservation import find_laws

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")


def _linear(*sizes, bias=False, activation=None):
    layers = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b, bias=bias), activation() if activation else nn.Identity()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((2, 1, 1), 1), ((2, 2, 2), 3), ((3, 2, 1), 3), ((1, 3, 1), 5), ((2, 3, 1), 6), ((2, 2, 2, 1), 6), ((2, 2, 2, 2), 6)],
)
def test_linear_networks_have_all_laws(sizes, expected):
    assert counts(generic(lambda: _linear(*sizes)), inputs(12, sizes[0])) == (expected, expected)


def test_a_bias_of_a_linear_layer_is_a_column_of_it():
    found, exact = counts(generic(lambda: _linear(2, 2, 1, bias=True)), inputs(12, 2))
    assert found == exact == 3


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU])
def test_relu_networks_have_one_law_a_unit(bias, activation):
    assert counts(generic(lambda: _linear(2, 3, 1, bias=bias, activation=activation)), inputs(40, 2)) == (3, 3)


def test_a_three_layer_relu_network_has_one_law_a_unit():
    assert counts(generic(lambda: _linear(2, 2, 2, 1, activation=nn.ReLU)), inputs(40, 2)) == (4, 4)


def _convolutions(activation):
    return nn.Sequential(nn.Conv1d(1, 2, 2), activation(), nn.Conv1d(2, 1, 2, bias=False), nn.Flatten())


def test_a_relu_convolution_has_one_law_a_channel():
    assert counts(generic(lambda: _convolutions(nn.ReLU)), inputs(30, 1, 4)) == (2, 2)


def test_a_linear_convolution_has_a_matrix_over_its_channels():
    assert counts(generic(lambda: _convolutions(nn.Identity)), inputs(12, 1, 4)) == (3, 3)


def test_pooling_and_flatten_keep_the_law_of_a_channel():
    def build():
        return nn.Sequential(nn.Conv1d(1, 2, 2), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(4, 1))

    assert counts(generic(build), inputs(30, 1, 5)) == (2, 2)


_LAST = [
    (lambda: [nn.Linear(2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6, 1)], (40, 3, 2), 2),
    (lambda: [nn.Linear(2, 2), nn.Flatten(), nn.Linear(6, 1)], (40, 3, 2), 3),
    (lambda: [Tokens(), nn.Embedding(3, 2), nn.Flatten(), nn.Linear(6, 1)], (30, 3, 3), 3),
    (lambda: [nn.Conv1d(1, 2, 2), nn.ReLU(), ChannelsLast(), nn.Flatten(), nn.Linear(6, 1)], (40, 1, 4), 2),
    (lambda: [nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(2), ChannelsLast(), nn.Flatten(), nn.Linear(8, 1)], (40, 1, 3, 3), 2),
    (lambda: [nn.Linear(2, 2), nn.ReLU(), nn.Flatten(), nn.Unflatten(1, (4, 1)), nn.Conv1d(4, 1, 1), nn.Flatten()], (40, 2, 2), 2),
]


@pytest.mark.parametrize(("layers", "shape", "expected"), _LAST)
def test_units_on_the_last_axis_keep_their_laws_where_positions_join_them(layers, shape, expected):
    assert counts(generic(lambda: nn.Sequential(*layers())), inputs(*shape)) == (expected, expected)


def _dense():
    """c([h; b(h)]), h = a(x): what one unit reads beside it."""
    return [nn.Linear(2, 2, bias=False), nn.ReLU(), Beside(nn.Identity(), nn.Sequential(nn.Linear(2, 1), nn.ReLU())), nn.Linear(3, 1)]


_BESIDE = [
    (lambda: [Beside(nn.Linear(2, 1), nn.Linear(2, 2)), nn.ReLU(), nn.Linear(3, 1)], (40, 2), 3),
    (lambda: [Beside(nn.Linear(2, 2), nn.Linear(2, 2)), nn.ReLU(), nn.Linear(4, 1)], (40, 2), 4),
    (_dense, (40, 2), 3),
    (lambda: [Beside(nn.Conv1d(1, 2, 2), nn.Conv1d(1, 1, 2), dim=1), nn.ReLU(), nn.Flatten(), nn.Linear(9, 1)], (50, 1, 4), 3),
    (lambda: [Beside(nn.Linear(2, 1), nn.Linear(2, 2)), nn.ReLU(), nn.Flatten(), nn.Linear(6, 1)], (50, 2, 2), 3),
    (lambda: [Beside(nn.Conv1d(1, 1, 2), nn.Conv1d(1, 2, 2), dim=1), nn.ReLU(), nn.Conv1d(3, 1, 2), nn.Flatten()], (40, 1, 4), 3),
]


@pytest.mark.parametrize(("layers", "shape", "expected"), _BESIDE)
def test_units_side_by_side_keep_their_laws(layers, shape, expected):
    x = 3 * inputs(*shape)  # so that every unit is active on some and silent on some: else there are more laws, of these data
    assert counts(generic(lambda: nn.Sequential(*layers())), x) == (expected, expected)


class _Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = _linear(2, 2, 2, activation=nn.ReLU)

    def forward(self, x):
        return x + self.block(x)


def test_a_residual_block_has_the_laws_of_its_branch():
    network = generic(_Residual)
    assert counts(network, inputs(40, 2)) == counts(network.block, inputs(40, 2)) == (2, 2)


class _Function(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_raw_inputs_beside_units_leave_these_their_laws():
    network = generic(lambda: nn.Sequential(Beside(nn.Identity(), nn.Sequential(nn.Linear(2, 2), nn.ReLU())), nn.Linear(4, 1)))
    assert counts(network, inputs(40, 2)) == (2, 2)


@pytest.mark.parametrize(
    "function",
    [
        nn.Threshold(0, 0),
        lambda x: torch.threshold(x, 0.0, 0.0),
        lambda x: torch.maximum(x, torch.zeros_like(x)),
        lambda x: x.minimum(x.new_zeros(())),
        lambda x: x.clip(min=0),
        lambda x: x.clamp(max=0),
        lambda x: x.clamp_max(0),
    ],
)
def test_whatever_cuts_at_zero_is_homogeneous(function):
    assert counts(generic(lambda: nn.Sequential(nn.Linear(2, 2), _Function(function), nn.Linear(2, 1))), inputs(40, 2)) == (2, 2)


class _Attention(nn.Module):
    def __init__(self, bias, heads=1):
        super().__init__()
        self.attention = nn.MultiheadAttention(2, heads, bias=bias, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0][:, 0]  # with its weights: forward derivatives need the plain formula


@pytest.mark.parametrize(("bias", "heads", "expected"), [(False, 1, 6), (True, 1, 8), (False, 2, 4), (True, 2, 6)])
def test_attention_has_two_matrices_a_head_and_its_key_bias(bias, heads, expected):
    """The shift of the value bias into the output bias conserves nothing; the key bias has no gradient."""
    assert counts(generic(lambda: _Attention(bias, heads)), inputs(20, 3, 2)) == (expected, expected)


class _PlainLayerNorm(nn.LayerNorm):
    """The formula: second forward derivatives of PyTorch's `layer_norm` are wrong (2.14)."""

    def forward(self, x):
        x = x - x.mean(-1, keepdim=True)
        return x / x.square().mean(-1, keepdim=True).sqrt() * self.weight + self.bias


def test_layer_norm_conserves_the_norm_and_the_sum_of_the_units():
    networks = [
        generic(lambda norm=norm: nn.Sequential(nn.Linear(2, 3, bias=False), norm(3), nn.Linear(3, 1, bias=False)))
        for norm in (nn.LayerNorm, _PlainLayerNorm)
    ]
    found = find_laws(networks[0]).independent(parameters_of(networks[0]))
    assert found == 15 - lie_dimension(networks[1], inputs(20, 2)) == 1 + 2 + 3


def test_batch_norm_conserves_the_norm_and_the_bias_of_each_unit():
    def build():
        return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False), nn.ReLU(), nn.Linear(2, 1))

    assert counts(generic(build), inputs(20, 2)) == (2 + 2 + 2, 6)


def test_softmax_conserves_the_sum_of_the_readout():
    network = generic(lambda: _linear(2, 2, 3, bias=True, activation=nn.ReLU))
    assert counts(network, inputs(30, 2), loss="cross_entropy") == (2 + 3, 5)


def test_a_smooth_activation_leaves_no_law():
    assert counts(generic(lambda: _linear(2, 2, 1, activation=nn.GELU)), inputs(20, 2)) == (0, 0)


def test_tied_layers_have_the_laws_of_their_stream():
    class Looped(nn.Module):
        def __init__(self):
            super().__init__()
            self.start, self.step, self.end = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)

        def forward(self, x):
            h = self.start(x).relu()
            for _ in range(2):
                h = h + self.step(h).relu()
            return self.end(h)

    assert counts(generic(Looped), inputs(30, 2)) == (2, 2)


def test_the_count_is_not_blind():
    """Leaving out the bias, a law is not conserved, so its gradient is not orthogonal to the fields: the counts would differ."""
    network = generic(lambda: _linear(2, 2, 1, bias=True, activation=nn.ReLU))
    x = inputs(30, 2)
    fields = [torch.autograd.grad(output, list(network.parameters()), retain_graph=True) for output in network(x).flatten()]
    half = torch.stack([field[0][0] @ network[0].weight[0] - field[2][0, 0] * network[2].weight[0, 0] for field in fields])
    assert half.abs().max() > 0.1
    assert (half + torch.stack([field[1][0] * network[0].bias[0] for field in fields])).abs().max() < 1e-14
