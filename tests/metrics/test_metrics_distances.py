"""Kernel, Hamming and parameter distance and the drift of δ, against slow float64 references."""

import copy

import pytest
import torch
from torch import nn

from richlearn.errors import NotApplicable, ParameterError, UsageError
from richlearn.metrics import (
    ActivationHammingDistance,
    ConservationLaws,
    ConservedQuantity,
    KernelDistance,
    ParameterDistance,
    activation_patterns,
)
from richlearn.networks import MLP, TwoLayer
from richlearn.seeds import generator, global_stream

PROBE = torch.randn(9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
RATES = {"layers.0.weight": 0.5, "layers.2.weight": 2.0}
METRICS = {
    "kernel": lambda: KernelDistance(PROBE),
    "hamming": lambda: ActivationHammingDistance(PROBE),
    "parameters": ParameterDistance,
    "delta": ConservedQuantity,
}


def _pair(outputs=1, dtype=torch.float64, **options):
    """A network and what it might have become."""
    with global_stream(generator(0, "metrics")):
        start = TwoLayer(5, outputs, width=8, **options).to(dtype)
        end = copy.deepcopy(start)
        with torch.no_grad():
            for parameter in end.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
    return start, end


def _measured(metric, start, end):
    metric.update(start)
    metric.update(end)
    return float(metric.compute())


def _slow_kernel(network, outputs, rates):
    rows = []
    for value in network(PROBE).flatten():
        slopes = torch.autograd.grad(value, list(network.parameters()), retain_graph=True)
        weights = [rates.get(name, 1.0) ** 0.5 for name, _ in network.named_parameters()]
        rows.append(torch.cat([w * slope.flatten() for w, slope in zip(weights, slopes, strict=True)]))
    jacobian = torch.stack(rows).reshape(len(PROBE), -1, len(rows[0]))
    return torch.einsum("icp,jcp->ij" if outputs == "trace" else "icp,jdp->icjd", jacobian, jacobian).flatten()


@pytest.mark.parametrize("rates", [{}, RATES])
@pytest.mark.parametrize("outputs", ["trace", "full"])
def test_kernel_distance_is_one_minus_the_cosine(outputs, rates):
    start, end = _pair(3, bias=True)
    first, second = (_slow_kernel(network, outputs, rates) for network in (start, end))
    expected = 1 - float(torch.nn.functional.cosine_similarity(first, second, dim=0))
    assert 0.01 < expected < 1
    assert _measured(KernelDistance(PROBE, outputs=outputs, rates=rates), start, end) == pytest.approx(expected, abs=1e-12)


def test_full_and_traced_kernels_differ():
    start, end = _pair(3)
    full, traced = (_measured(KernelDistance(PROBE, outputs=kind), start, end) for kind in ("full", "trace"))
    assert abs(full - traced) > 1e-3


@pytest.mark.parametrize("summed", [False, True])
def test_hamming_distance_counts_flipped_patterns(summed):
    start, end = _pair()
    flips = 0
    for x in PROBE:
        for k in range(8):
            before, after = (float(network.layers[0].weight[k].detach() @ x) > 0 for network in (start, end))
            flips += before != after
    expected = flips / len(PROBE) if summed else flips / (len(PROBE) * 8)
    assert flips > 3
    assert _measured(ActivationHammingDistance(PROBE, summed=summed), start, end) == pytest.approx(expected, abs=1e-14)


def test_patterns_cover_every_layer_and_input():
    network = MLP(5, 2, width=4, depth=2).double()
    first = network.layers[0](PROBE)
    second = network.layers[2](first.relu())
    assert torch.equal(activation_patterns(network, PROBE), torch.cat([first > 0, second > 0], dim=1))


def test_patterns_are_those_of_evaluation_and_leave_nothing_behind():
    network = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 6), nn.ReLU()).double()
    network[1].eval()
    before, stream = copy.deepcopy(network.state_dict()), torch.get_rng_state()
    first, second = activation_patterns(network, PROBE), activation_patterns(network, PROBE)
    assert torch.equal(first, second)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert [module.training for module in network] == [True, False, True, True, True, True]
    assert torch.equal(stream, torch.get_rng_state())


@pytest.mark.parametrize("relative", [False, True])
def test_parameter_distance_is_the_euclidean_norm(relative):
    start, end = _pair(2, bias=True)
    pairs = [(p.detach(), q.detach()) for p, q in zip(start.parameters(), end.parameters(), strict=True)]
    distance = sum(float(u - v) ** 2 for p, q in pairs for u, v in zip(p.flatten(), q.flatten(), strict=True)) ** 0.5
    size = sum(float(u) ** 2 for p, _ in pairs for u in p.flatten()) ** 0.5
    assert _measured(ParameterDistance(relative=relative), start, end) == pytest.approx(
        distance / size if relative else distance, rel=1e-13
    )


def test_small_distances_survive_float32():
    start, _ = _pair(dtype=torch.float32)
    end = copy.deepcopy(start)
    with torch.no_grad():
        end.layers[0].weight[0, 0] += 1e-4
    moved = float((end.layers[0].weight.double() - start.layers[0].weight.double()).detach().norm())
    assert _measured(ParameterDistance(), start, end) == pytest.approx(moved, rel=1e-12)
    assert 0 < _measured(KernelDistance(PROBE.float()), start, end) < 1e-6


@pytest.mark.parametrize("rates", [{}, RATES])
def test_delta_and_its_drift(rates):
    start, end = _pair(3)
    eta_w, eta_a = rates.get("layers.0.weight", 1.0), rates.get("layers.2.weight", 1.0)
    found = []
    for network in (start, end):
        w, a = network.layers[0].weight.detach(), network.layers[2].weight.detach()
        parts = [(eta_w * float(a[:, k] @ a[:, k]), eta_a * float(w[k] @ w[k])) for k in range(8)]
        found.append(torch.tensor([[out - into, out + into] for out, into in parts], dtype=torch.float64))
    metric = ConservedQuantity(rates=rates)
    expected = float((found[1][:, 0] - found[0][:, 0]).norm() / found[0][:, 1].norm())
    assert _measured(metric, start, end) == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(metric.delta, found[1][:, 0])


@pytest.mark.parametrize("metric", [ConservedQuantity, ConservationLaws])
def test_rates_are_checked(metric):
    network = _pair(bias=True)[0]
    with pytest.raises(NotApplicable, match=r"the learning rate of `layers.0.bias` is 0, so nothing that it takes part in is conserved"):
        metric(rates={"layers.0.bias": 0.0}).update(network)
    with pytest.raises(ParameterError, match=r"`rates` names parameters that the network does not have: \['w'\]"):
        metric(rates={"w": 1.0}).update(network)


@pytest.mark.parametrize("name", METRICS)
def test_a_validation_step_can_update(name):
    """Lightning validates in inference mode, whose tensors have no gradients."""
    expected = _measured(METRICS[name](), *_pair())
    with torch.inference_mode():
        assert _measured(METRICS[name](), *_pair()) == expected


def test_delta_covers_every_homogeneous_pair():
    metric = ConservedQuantity()
    metric.update(MLP(5, 2, width=4, depth=3))
    assert metric.delta.shape == (12,)


@pytest.mark.parametrize("name", METRICS)
def test_a_network_is_at_no_distance_from_itself(name):
    start, _ = _pair()
    metric = METRICS[name]()
    metric.update(start)
    assert float(metric.compute()) == 0.0


@pytest.mark.parametrize("name", METRICS)
def test_the_reference_stays_until_reset(name):
    start, end = _pair()
    metric = METRICS[name]()
    first = _measured(metric, start, end)
    metric.update(start)
    assert float(metric.compute()) == 0.0
    metric.update(end)
    assert float(metric.compute()) == first
    metric.reset()
    metric.update(end)
    assert float(metric.compute()) == 0.0


@pytest.mark.parametrize("name", METRICS)
def test_the_reference_is_a_copy(name):
    network, end = _pair()
    metric = METRICS[name]()
    expected = _measured(METRICS[name](), network, end)
    metric.update(network)
    with torch.no_grad():
        for parameter, value in zip(network.parameters(), end.parameters(), strict=True):
            parameter.copy_(value)
    metric.update(network)
    assert float(metric.compute()) == expected > 0


@pytest.mark.parametrize("name", METRICS)
def test_calling_a_metric_updates_and_computes(name):
    start, end = _pair()
    metric = METRICS[name]()
    assert float(metric(start)) == 0.0
    assert float(metric(end)) == _measured(METRICS[name](), start, end) == float(metric.compute())


@pytest.mark.parametrize("name", METRICS)
def test_metrics_leave_the_network_alone(name):
    network, _ = _pair()
    stream = torch.get_rng_state()
    METRICS[name]().update(network)
    assert network.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(stream, torch.get_rng_state())


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_computing_before_updating_is_refused(name):
    metric = METRICS[name]()
    with pytest.raises(UsageError, match=rf"`{type(metric).__name__}` has seen no network yet: call `update\(network\)`"):
        metric.compute()


def test_delta_before_updating_is_refused():
    with pytest.raises(UsageError, match="`ConservedQuantity` has seen no network yet"):
        _ = ConservedQuantity().delta


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        (ActivationHammingDistance(PROBE), "`MLP` has no piecewise-linear activation, so no activation patterns"),
        (ConservedQuantity(), "`MLP` has no two weight layers joined by a homogeneous activation, so no δ"),
    ],
)
def test_a_metric_says_why_it_cannot_serve(metric, reason):
    with pytest.raises(NotApplicable, match=reason):
        metric.update(MLP(5, 1, width=4, depth=1, activation="gelu").double())
