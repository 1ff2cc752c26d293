"""The metrics of one kernel: what each returns, what it keeps, and that a kernel can be handed to all of them."""

import copy
import math
from itertools import accumulate

import pytest
import torch
from torch import nn

from richlearn.errors import ParameterError
from richlearn.kernels import empirical_ntk, kernel_distance
from richlearn.kernels.alignment import kernel_alignment
from richlearn.kernels.spectrum import effective_rank, eigenspace_overlap
from richlearn.metrics import EffectiveRank, EigenspaceOverlap, KernelAlignment, KernelDistance, KernelVelocity
from richlearn.networks import MLP, TwoLayer
from richlearn.seeds import generator, global_stream

PROBE = torch.randn(9, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
TARGETS = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
METRICS = {
    "distance": KernelDistance,
    "velocity": KernelVelocity,
    "alignment": lambda probe, **options: KernelAlignment(probe, TARGETS, **options),
    "rank": EffectiveRank,
    "overlap": lambda probe, **options: EigenspaceOverlap(probe, 3, **options),
}
KEEPING = ["distance", "velocity", "overlap"]


def _path(count=3, dtype=torch.float64):
    """A network, and what it becomes step by step."""
    with global_stream(generator(0, "metrics")):
        networks = [TwoLayer(5, 2, width=8, bias=True).to(dtype)]
        for _ in range(count - 1):
            networks.append(copy.deepcopy(networks[-1]))
            with torch.no_grad():
                for parameter in networks[-1].parameters():
                    parameter += 0.3 * torch.randn_like(parameter)
    return networks


def _curve(metric, networks):
    return [float(metric(network)) for network in networks]


def _same(found, expected):
    return found == pytest.approx(expected, rel=1e-9, abs=1e-14, nan_ok=True)


@pytest.mark.parametrize("outputs", ["trace", "full"])
def test_each_is_its_function_of_the_kernel(outputs):
    kernels = [empirical_ntk(network, PROBE, outputs=outputs) for network in _path()]
    expected = {
        "distance": [kernel_distance(kernels[0], kernel) for kernel in kernels],
        "velocity": [math.nan, kernel_distance(kernels[0], kernels[1]), kernel_distance(kernels[1], kernels[2])],
        "alignment": [kernel_alignment(kernel, TARGETS) for kernel in kernels],
        "rank": [effective_rank(kernel) for kernel in kernels],
        "overlap": [eigenspace_overlap(kernels[0], kernel, 3) for kernel in kernels],
    }
    found = {name: _curve(make(PROBE, outputs=outputs), _path()) for name, make in METRICS.items()}
    assert all(_same(found[name], values) for name, values in expected.items())


@pytest.mark.parametrize("name", METRICS)
def test_a_kernel_known_already_serves_as_well_as_its_network(name):
    first, second = METRICS[name](PROBE), METRICS[name](PROBE)
    for network in _path():
        first.update(network)
        second.update_kernel(empirical_ntk(network, PROBE, outputs="trace"))
        assert _same(float(second.compute()), float(first.compute()))


@pytest.mark.parametrize("name", METRICS)
def test_scaling_the_output_changes_nothing(name):
    class Scaled(nn.Module):
        def __init__(self, network, factor):
            super().__init__()
            self.network, self.factor = network, factor

        def forward(self, x):
            return self.factor * self.network(x)

    scaled = [Scaled(network, factor) for network, factor in zip(_path(), [1.0, 1e-3, 50.0], strict=True)]
    assert _same(_curve(METRICS[name](PROBE), scaled), _curve(METRICS[name](PROBE), _path()))


@pytest.mark.parametrize("name", METRICS)
def test_scaling_all_rates_changes_nothing(name):
    rates = {parameter: 1e-3 for parameter, _ in _path(1)[0].named_parameters()}
    assert _same(_curve(METRICS[name](PROBE, rates=rates), _path()), _curve(METRICS[name](PROBE), _path()))


@pytest.mark.parametrize("name", METRICS)
def test_a_restored_reference_is_what_is_compared_with(name):
    *before, last = _path(4)
    whole, resumed = METRICS[name](PROBE), METRICS[name](PROBE)
    _curve(whole, before)
    resumed.reference = whole.reference.clone()
    assert float(whole(last)) == float(resumed(last))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["distance", "velocity"])
def test_half_a_kernel_is_kept_in_its_dtype(name, dtype):
    metric = METRICS[name](PROBE.to(dtype))
    _curve(metric, _path(dtype=dtype))
    assert (metric.reference.numel(), metric.reference.dtype, metric.current.numel()) == (9 * 10 // 2, dtype, 1)


def test_of_eigenvectors_only_the_largest_are_kept():
    metric = EigenspaceOverlap(PROBE, 3)
    _curve(metric, _path())
    assert (metric.reference.shape, metric.current.numel()) == ((9, 3), 1)


@pytest.mark.parametrize("name", ["alignment", "rank"])
def test_a_metric_of_one_kernel_keeps_none(name):
    metric = METRICS[name](PROBE)
    _curve(metric, _path())
    assert metric.reference.numel() == 0


@pytest.mark.parametrize("name", ["distance", "velocity"])
def test_an_update_makes_no_more_than_half_a_kernel(name):
    """With the kernel given and the half kept before, that is two kernels at most, and six blocks of rows."""
    metric, kernels = METRICS[name](PROBE), [torch.rand(3000, 3000) for _ in range(2)]
    metric.update_kernel(kernels[0])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        metric.update_kernel(kernels[1])
    steps = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    peak = max(accumulate(event.nbytes() for event in sorted(steps, key=lambda event: event.start_ns())))
    half = 4 * 3000 * 3001 // 2
    assert half <= peak <= half + 6 * 8 * 2**18


@pytest.mark.parametrize("name", METRICS)
def test_a_diverged_network_gives_nan(name):
    start, end = _path(2)
    with torch.no_grad():
        end.layers[0].weight.fill_(torch.nan)
    metric = METRICS[name](PROBE)
    metric.update(start)
    assert math.isnan(metric(end))


@pytest.mark.parametrize("name", METRICS)
def test_reset_forgets(name):
    first, *rest = _path()
    metric = METRICS[name](PROBE)
    metric.update(first)
    metric.reset()
    assert _same(_curve(metric, rest), _curve(METRICS[name](PROBE), rest))


@pytest.mark.parametrize("name", KEEPING)
def test_small_motion_survives_float32(name):
    start, _ = _path(2, torch.float32)
    end = copy.deepcopy(start)
    with torch.no_grad():
        end.layers[0].weight[0, 0] += 1e-3
    found = _curve(METRICS[name](PROBE.float()), [start, end])[1]
    assert 0 < (1 - found if name == "overlap" else found) < 1e-4


@pytest.mark.parametrize("name", KEEPING)
def test_a_kernel_of_another_probe_is_refused(name):
    metric = METRICS[name](PROBE)
    metric.update_kernel(torch.eye(9))
    with pytest.raises(ParameterError, match=r"must be of one probe and one (kind, got symmetric halves|`count`, got shapes)"):
        metric.update_kernel(torch.eye(8))


def test_targets_may_be_left_uncentred():
    network = MLP(5, 2, width=4, depth=2).double()
    expected = kernel_alignment(empirical_ntk(network, PROBE, outputs="trace"), TARGETS, centred=False)
    assert float(KernelAlignment(PROBE, TARGETS, centred=False)(network)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("targets", [TARGETS[:4], torch.tensor(1.0)])
def test_every_input_needs_its_target(targets):
    with pytest.raises(ParameterError, match=r"`targets` must have a row for each of the 9 inputs, got shape \("):
        KernelAlignment(PROBE, targets)


def test_at_least_one_eigenvector_is_needed():
    with pytest.raises(ParameterError, match="`count` must be at least 1 eigenvector, got 0"):
        EigenspaceOverlap(PROBE, 0)
