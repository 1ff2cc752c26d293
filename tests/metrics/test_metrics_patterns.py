"""Activation patterns as bits: packing against loops, every kind of unit, layers, and the 2-colouring of the plane."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from richlearn.errors import NotApplicable, ParameterError, UsageError
from richlearn.metrics import ActivationHammingDistance, activation_patterns, pattern_parity
from richlearn.metrics._bits import count_bits, pack_bits
from richlearn.networks import MLP, TwoLayer
from richlearn.seeds import generator, global_stream

PROBE = 3 * torch.randn(9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _weights(*shapes, seed=0):
    stream = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(*shape, dtype=torch.float64, generator=stream)) for shape in shapes]


class Functional(nn.Module):
    """f(x) = readout of σ(Wx), σ a function."""

    def __init__(self, function, seed=0):
        super().__init__()
        self.inner, self.outer = _weights((6, 5), (2, 6), seed=seed)
        self.function = function

    def forward(self, x):
        return self.function(x @ self.inner.T) @ self.outer.T


def _moved(network, seed=1):
    """The network after a step in a random direction."""
    end, stream = copy.deepcopy(network), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in end.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, dtype=parameter.dtype, generator=stream)
    return end


def _metric(start, end, probe=PROBE, **options):
    metric = ActivationHammingDistance(probe, **options)
    metric.update(start)
    metric.update(end)
    return metric


@given(bits=st.lists(st.booleans(), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_bits_are_packed_lowest_first(bits):
    octets = [bits[i : i + 8] for i in range(0, len(bits), 8)]
    expected = [sum(2**place for place, bit in enumerate(octet) if bit) for octet in octets]
    assert pack_bits(torch.tensor(bits)).tolist() == expected


def test_every_byte_is_counted_right():
    counts = [int(count_bits(torch.tensor([byte], dtype=torch.uint8))) for byte in range(256)]
    assert counts == [bin(byte).count("1") for byte in range(256)]
    assert int(count_bits(torch.arange(256, dtype=torch.uint8).repeat(100))) == 100 * sum(counts)


def test_a_pattern_that_is_no_contiguous_tensor_is_packed_in_its_order():
    bits = torch.rand(3, 5, generator=torch.Generator().manual_seed(0)) > 0.5
    assert torch.equal(pack_bits(bits.T), pack_bits(bits.T.contiguous()))


ABOVE_0 = {
    "F.relu": F.relu,
    "F.relu in place": lambda z: F.relu(z, inplace=True),
    "F.relu by keyword": lambda z: F.relu(input=z),
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda z: z.relu(),
    "Tensor.relu_": lambda z: z.relu_(),
    "F.leaky_relu": F.leaky_relu,
    "F.leaky_relu_": F.leaky_relu_,
    "F.prelu": lambda z: F.prelu(z, torch.full((1,), 0.3, dtype=z.dtype)),
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU in place": nn.ReLU(inplace=True),
    "nn.LeakyReLU": nn.LeakyReLU(0.2),
    "nn.LeakyReLU in place": nn.LeakyReLU(0.2, inplace=True),
    "nn.PReLU": nn.PReLU().double(),
    "nn.RReLU": nn.RReLU(),
}
BETWEEN = {
    "F.relu6": (F.relu6, 0, 6),
    "nn.ReLU6": (nn.ReLU6(), 0, 6),
    "nn.ReLU6 in place": (nn.ReLU6(inplace=True), 0, 6),
    "F.hardtanh": (F.hardtanh, -1, 1),
    "F.hardtanh by keyword": (lambda z: F.hardtanh(z, max_val=2.0), -1, 2),
    "nn.Hardtanh": (nn.Hardtanh(-0.5, 0.5), -0.5, 0.5),
}


@pytest.mark.parametrize("name", ABOVE_0)
def test_modules_and_functions_are_active_above_0(name):
    network = Functional(ABOVE_0[name])
    assert torch.equal(activation_patterns(network, PROBE), PROBE @ network.inner.T > 0)


@pytest.mark.parametrize("name", BETWEEN)
def test_units_with_two_kinks_are_active_between_them(name):
    function, low, high = BETWEEN[name]
    network = Functional(function)
    pre = PROBE @ network.inner.T
    assert (pre > high).any()
    assert torch.equal(activation_patterns(network, PROBE), (pre > low) & (pre < high))


@pytest.mark.parametrize("name", [*ABOVE_0, *BETWEEN])
def test_active_is_where_the_slope_is_the_larger(name):
    network = Functional(ABOVE_0[name] if name in ABOVE_0 else BETWEEN[name][0]).eval()
    pre = (PROBE @ network.inner.T).detach().requires_grad_()
    (slope,) = torch.autograd.grad(network.function(pre.clone()).sum(), pre)
    assert torch.equal(activation_patterns(network, PROBE), slope > 0.9)


@pytest.mark.parametrize("function", [torch.tanh, F.gelu, F.elu, lambda z: z, lambda z: z.clamp(min=0)])
def test_other_functions_have_no_patterns(function):
    with pytest.raises(NotApplicable, match="`Functional` has no piecewise-linear activation, so no activation patterns"):
        ActivationHammingDistance(PROBE).update(Functional(function))


def _slow(start, end, probe=PROBE):
    return (activation_patterns(start, probe) != activation_patterns(end, probe)).double()


@pytest.mark.parametrize("samples", [1, 8, 9])
@pytest.mark.parametrize("summed", [False, True])
def test_bits_give_the_share_that_booleans_gave(samples, summed):
    start = Functional(F.relu)
    end, probe = _moved(start), PROBE[-samples:]
    per_unit = _slow(start, end, probe).mean(0)
    expected = float(per_unit.sum() if summed else per_unit.mean())
    assert expected > 0
    assert float(_metric(start, end, probe, summed=summed).compute()) == pytest.approx(expected, rel=1e-15)


def test_on_a_power_of_two_inputs_the_value_is_the_same_to_the_last_bit():
    probe = torch.randn(256, 5, generator=torch.Generator().manual_seed(2))
    for seed in range(10):
        with global_stream(generator(seed, "metrics")):
            start = MLP(5, 2, width=7, depth=3)
        end = _moved(start, seed)
        assert float(_metric(start, end, probe).compute()) == float(_slow(start, end, probe).mean(0).mean())


def test_patterns_are_held_as_bits():
    metric = _metric(TwoLayer(5, 1, width=40).double(), TwoLayer(5, 1, width=40).double())
    assert [(state.dtype, state.numel()) for state in (metric.reference, metric.current)] == [(torch.uint8, 9 * 40 // 8)] * 2


def test_a_restored_reference_is_what_is_compared_with():
    start = Functional(F.relu)
    whole, resumed = _metric(start, _moved(start)), ActivationHammingDistance(PROBE)
    resumed.reference = whole.reference.clone()
    assert float(resumed(_moved(start))) == float(whole.compute()) > 0


def test_shares_of_layers_weighted_by_size_are_the_whole():
    start = nn.Sequential(nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 11), nn.LeakyReLU(), nn.Linear(11, 1)).double()
    metric = _metric(start, _moved(start))
    shares = metric.per_layer()
    differs = _slow(start, _moved(start))
    assert shares == {"1": float(differs[:, :3].mean()), "3": pytest.approx(float(differs[:, 3:].mean()), rel=1e-15)}
    assert (3 * shares["1"] + 11 * shares["3"]) / 14 == pytest.approx(float(metric.compute()), rel=1e-14)


class Branches(nn.Module):
    """One module used twice, a function in a block twice, and two functions in the network itself."""

    def __init__(self):
        super().__init__()
        self.act, self.block = nn.ReLU(), Functional(lambda z: F.relu(F.relu(z) - 1))
        self.scale = nn.Linear(5, 5, dtype=torch.float64)

    def forward(self, x):
        h = self.act(self.scale(self.act(x)))
        return torch.relu(self.block(h)) + F.leaky_relu(self.block(h - 1)).relu()


def test_layers_bear_the_name_of_the_module_that_computes_them():
    metric = _metric(Branches(), Branches())
    assert list(metric.per_layer()) == ["act", "act/2", "block", "block/2", "relu", "block/3", "block/4", "leaky_relu", "relu/2"]


def test_an_activation_used_twice_counts_twice():
    act = nn.ReLU()
    network = nn.Sequential(nn.Linear(5, 6), act, nn.Linear(6, 4), act, nn.Linear(4, 1)).double()
    assert activation_patterns(network, PROBE).shape == (9, 10)


def test_the_activation_of_a_transformer_is_seen():
    network = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    assert activation_patterns(network, torch.randn(3, 7, 4)).shape == (3, 7 * 8)


def test_a_compiled_network_has_the_same_patterns():
    network = Functional(F.relu)
    compiled = torch.compile(network, backend="eager")
    assert torch.equal(activation_patterns(compiled, PROBE), activation_patterns(network, PROBE))


def test_a_scripted_module_is_refused():
    network = nn.Sequential(nn.Linear(5, 4), torch.jit.trace(TwoLayer(4, 1, width=3), torch.zeros(2, 4)))
    with pytest.raises(ParameterError, match=r"scripted module, which hides its activations: give the `nn.Module`"):
        activation_patterns(network, PROBE.float())


def test_convolutions_and_indices_serve():
    image = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 1))
    tokens = nn.Sequential(nn.Embedding(5, 4), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1))
    assert activation_patterns(image, torch.randn(6, 1, 4, 4)).shape == (6, 12)
    assert float(_metric(tokens, tokens, torch.tensor([[0, 1], [3, 4]])).compute()) == 0.0


def test_nan_is_not_active_and_infinity_is():
    network = nn.Sequential(nn.Identity(), nn.ReLU(), nn.Linear(3, 1))
    assert activation_patterns(network, torch.tensor([[math.nan, math.inf, -math.inf]])).tolist() == [[False, True, False]]


class Sums(nn.Module):
    """Its activation is of all inputs together."""

    def forward(self, x):
        return x + F.relu(x.sum(0))


def test_patterns_per_input_need_the_inputs_first():
    with pytest.raises(NotApplicable, match=r"`relu` of `Sums` has activations of shape \(5,\), whose first dimension does not hold the 9"):
        activation_patterns(Sums(), PROBE)


def test_hooks_modes_and_buffers_are_as_before():
    network = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Linear(6, 1)).double()
    before = copy.deepcopy(network.state_dict())
    activation_patterns(network, PROBE)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
    assert all(module.training for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_network_that_raises_is_left_as_it_was():
    network = nn.Sequential(nn.ReLU(), nn.Linear(3, 1))
    with pytest.raises(RuntimeError):
        activation_patterns(network, PROBE)
    assert network.training
    assert not network[0]._forward_hooks
    assert torch.overrides._get_current_function_mode() is None


def test_the_output_is_not_touched():
    outputs, network = [], Functional(F.relu)
    expected = network(PROBE)
    network.register_forward_hook(lambda _module, _args, output: outputs.append(output))
    activation_patterns(network, PROBE)
    assert torch.equal(outputs[0], expected)


def test_another_networks_patterns_are_refused():
    metric = ActivationHammingDistance(PROBE)
    metric.update(TwoLayer(5, 1, width=8).double())
    metric.update(TwoLayer(5, 1, width=16).double())
    with pytest.raises(ParameterError, match="the reference holds 9 bytes of patterns, the network now gives 18"):
        metric.compute()


def test_layers_before_updating_are_refused():
    with pytest.raises(UsageError, match="`ActivationHammingDistance` has seen no network yet"):
        ActivationHammingDistance(PROBE).per_layer()


def test_parity_counts_active_units():
    network = MLP(5, 2, width=6, depth=2).double()
    assert pattern_parity(network, PROBE).tolist() == [bool(sum(row) % 2) for row in activation_patterns(network, PROBE).tolist()]


@pytest.mark.parametrize("seed", range(5))
def test_neighbouring_regions_of_the_plane_differ_in_colour(seed):
    """Along a line through the plane, each hyperplane is crossed once: so colours alternate from region to region."""
    with global_stream(generator(seed, "plane")):
        network = TwoLayer(2, 1, width=12, bias=True).double()
        start, along = torch.randn(2, 2, dtype=torch.float64)
    weight, bias = network.layers[0].weight.detach(), network.layers[0].bias.detach()
    crossings = (-(weight @ start + bias) / (weight @ along)).sort().values
    between = torch.cat([crossings[:1] - 1, (crossings[1:] + crossings[:-1]) / 2, crossings[-1:] + 1])
    colours = pattern_parity(network, start + between[:, None] * along)
    assert colours.shape == (13,)
    assert bool((colours[1:] != colours[:-1]).all())
