"""δ: its formula, and its conservation in simulations written out here."""

import numpy as np
import pytest
import torch
from torch import nn

from richlearn.metrics import conserved_quantities
from richlearn.networks import TwoLayer
from richlearn.seeds import generator, global_stream
from richlearn.theory import conserved_quantity, unit_scale

X = torch.randn(30, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
Y = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
RATES = {
    "equal": {},
    "unequal": {"layers.0.weight": 0.5, "layers.2.weight": 2.0, "layers.0.bias": 3.0, "layers.2.bias": 0.7},
}


def _network(**options):
    with global_stream(generator(0, "theory")):
        return TwoLayer(4, 2, width=6, **options).double()


def _gradients(network, samples=slice(None)):
    loss = nn.functional.mse_loss(network(X[samples]), Y[samples])
    return dict(zip(dict(network.named_parameters()), torch.autograd.grad(loss, list(network.parameters())), strict=True))


def _descend(network, lr, steps, rates):
    for _ in range(steps):
        gradients = _gradients(network)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter -= lr * rates.get(name, 1.0) * gradients[name]


def _delta(network, rates):
    own = dict(network.named_parameters())
    return conserved_quantities(network, {name: rate for name, rate in rates.items() if name in own})[0]


def test_the_formula_sums_over_a_units_weights():
    w, a, b = torch.randn(3, 2, 2), torch.randn(4, 3), torch.randn(3)
    found = conserved_quantity(w, a, bias=b, rate_in=2.0, rate_out=3.0, rate_bias=5.0)
    for k in range(3):
        into, out = sum(float(v) ** 2 for v in w[k].flatten()), sum(float(v) ** 2 for v in a[:, k])
        assert float(found[k]) == pytest.approx(2 * out - 3 * into - 3 * 2 / 5 * float(b[k]) ** 2, rel=1e-5)


def test_unit_scale_bounds_delta():
    w, a = torch.randn(50, 3), torch.randn(2, 50)
    scale = unit_scale(w, a, rate_in=0.3, rate_out=2.0)
    expected = 0.3 * a.double().square().sum(0) + 2.0 * w.double().square().sum(1)
    torch.testing.assert_close(scale, expected)
    assert (scale >= conserved_quantity(w, a, rate_in=0.3, rate_out=2.0).abs()).all()


def test_unit_scale_counts_the_bias_as_delta_does():
    given = {"bias": torch.full((50,), 10.0), "rate_in": 0.3, "rate_out": 2.0, "rate_bias": 0.5}
    w, a = torch.randn(50, 3), torch.randn(2, 50)
    assert (unit_scale(w, a, **given) >= conserved_quantity(w, a, **given).abs()).all()


@pytest.mark.parametrize("function", [conserved_quantity, unit_scale])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_in_arrays_out(function, dtype):
    source = np.random.default_rng(0)
    w, a, b = (source.normal(size=shape).astype(dtype) for shape in ((6, 2, 2), (3, 6), (6,)))
    rates = {"rate_in": 0.3, "rate_out": 2.0, "rate_bias": 0.5}
    found = function(w, a, bias=b, **rates)
    assert isinstance(found, np.ndarray)
    assert (found.dtype, found.shape) == (np.float64, (6,))
    np.testing.assert_array_equal(found, function(torch.tensor(w), torch.tensor(a), bias=torch.tensor(b), **rates).numpy())


@pytest.mark.parametrize("function", [conserved_quantity, unit_scale])
def test_lists_count_as_arrays(function):
    expected = {conserved_quantity: 2.0 * 4 - 3.0 * 25, unit_scale: 2.0 * 4 + 3.0 * 25}[function]
    np.testing.assert_array_equal(function([[3, 4]], [[2]], rate_in=2.0, rate_out=3.0), [expected])


@pytest.mark.parametrize("function", [conserved_quantity, unit_scale])
def test_a_single_tensor_makes_the_result_one(function):
    w, a, b = torch.ones(2, 3), torch.ones(1, 2), torch.ones(2)
    expected = function(w, a, bias=b)
    for mixed in ((w.numpy(), a, b), (w, a.numpy(), b), (w.numpy(), a.numpy(), b)):
        found = function(*mixed[:2], bias=mixed[2])
        assert isinstance(found, torch.Tensor)
        assert torch.equal(found, expected)


def test_an_array_is_neither_changed_nor_shared():
    w = np.ones((2, 3))
    w.setflags(write=False)
    found = conserved_quantity(w, np.ones((1, 2)))
    found += 1
    np.testing.assert_array_equal(w, 1)


def test_weights_that_are_trained_leave_no_graph():
    w, a = torch.ones(2, 3, requires_grad=True), torch.ones(1, 2, requires_grad=True)
    assert not conserved_quantity(w, a).requires_grad
    assert not unit_scale(w, a.detach().numpy()).requires_grad


def test_results_are_float64():
    assert conserved_quantity(torch.ones(2, 3), torch.ones(1, 2)).dtype == torch.float64


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("options", [{}, {"bias": True}, {"activation": "leaky_relu", "bias": True}, {"activation": "linear"}])
def test_halving_the_rate_halves_the_drift_over_one_flow_time(options, rates):
    drifts = []
    for halvings in (0, 1):
        network = _network(**options)
        start = _delta(network, RATES[rates])
        _descend(network, 0.02 / 2**halvings, 200 * 2**halvings, RATES[rates])
        drifts.append(float((_delta(network, RATES[rates]) - start).norm()))
    assert drifts[0] > 1e-5
    assert drifts[0] / drifts[1] == pytest.approx(2.0, rel=0.05)


def test_without_its_bias_a_unit_conserves_nothing():
    drifts = []
    for halvings in (0, 1):
        network = _network(bias=True)
        w, a = network.layers[0].weight, network.layers[2].weight
        start = conserved_quantity(w, a)
        _descend(network, 0.02 / 2**halvings, 200 * 2**halvings, {})
        drifts.append(float((conserved_quantity(w, a) - start).norm()))
    assert drifts[0] / drifts[1] == pytest.approx(1.0, rel=0.05)


def test_a_smooth_activation_conserves_nothing():
    drifts = []
    for halvings in (0, 1):
        network = _network(activation="tanh")
        w, a = network.layers[0].weight, network.layers[2].weight
        start = conserved_quantity(w, a)
        _descend(network, 0.1 / 2**halvings, 400 * 2**halvings, {})
        drifts.append(float((conserved_quantity(w, a) - start).norm()))
    assert drifts[0] / drifts[1] == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("samples", [slice(None), slice(3, 10)])
@pytest.mark.parametrize("bias", [False, True])
def test_one_step_changes_delta_by_the_exact_amount(samples, bias):
    network, rates = _network(bias=bias), {"layers.0.weight": 0.3, "layers.2.weight": 0.05, "layers.0.bias": 0.2}
    eta_w, eta_a, eta_b = rates.values()
    start, gradients = _delta(network, rates), _gradients(network, samples)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter -= rates.get(name, 1.0) * gradients[name]
    into, out = gradients["layers.0.weight"].square().sum(1), gradients["layers.2.weight"].square().sum(0)
    expected = eta_a * eta_w * (eta_a * out - eta_w * into)
    if bias:
        expected = expected - eta_a * eta_w * eta_b * gradients["layers.0.bias"].square()
    assert expected.abs().max() > 1e-5
    torch.testing.assert_close(_delta(network, rates) - start, expected, rtol=1e-9, atol=1e-13)


def test_forward_scales_act_as_rates():
    scale_a, scale_w, lr = 0.5, 3.0, 0.1
    w, a = torch.randn(6, 4, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    found = conserved_quantity(scale_w * w, scale_a * a, rate_in=lr * scale_w**2, rate_out=lr * scale_a**2)
    torch.testing.assert_close(found, lr * scale_a**2 * scale_w**2 * (a.square().sum(0) - w.square().sum(1)))
