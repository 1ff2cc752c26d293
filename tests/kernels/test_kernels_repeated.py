"""An engine that is asked again and again: what it keeps between kernels never shows in them."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from zoo import COVERED, Calls, Transformer, made, slow

from richlearn.kernels import TangentKernel, _factors, _plan
from richlearn.kernels._factors import Factor
from richlearn.kernels._kept import Kept
from richlearn.kernels._uses import ParameterView, Use
from richlearn.networks import TwoLayer


def _two_layer(seed=0):
    return made(lambda: TwoLayer(6, 2, width=5), seed=seed)


@pytest.mark.parametrize("outputs", ["full", "trace"])
@pytest.mark.parametrize("memory", [2**29, 60_000])
@pytest.mark.parametrize("name", COVERED)
def test_kernels_asked_for_again_are_the_same_bit_for_bit(name, outputs, memory):
    network, x = made(COVERED[name][0]), COVERED[name][1]()
    engine = TangentKernel(network, x, outputs=outputs, memory=memory)
    first = engine(network)
    assert all(torch.equal(engine(network), first) for _ in range(3))


@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_later_networks_and_rates_are_served(outputs):
    x = torch.randn(7, 6, dtype=torch.float64)
    engine = TangentKernel(_two_layer(), x, outputs=outputs)
    first = next(name for name, _ in _two_layer().named_parameters())
    for seed in range(4):
        for rates in (None, {first: 0.3}, {first: 1.7}):
            expected = slow(_two_layer(seed), x, outputs=outputs, rates=rates)
            torch.testing.assert_close(engine(_two_layer(seed), rates=rates), expected, rtol=1e-11, atol=1e-12)


def test_layers_of_a_kernel_that_is_kept():
    x = torch.randn(7, 6, dtype=torch.float64)
    engine = TangentKernel(_two_layer(), x)
    kernels = [engine(_two_layer()) for _ in range(3)]
    torch.testing.assert_close(sum(engine.layers(_two_layer()).values()), kernels[2], rtol=1e-12, atol=1e-12)


SEE_THE_INPUTS = ["two-layer", "lenet", "strided, dilated, grouped convolutions"]


@pytest.mark.parametrize("name", SEE_THE_INPUTS)
def test_a_probe_that_changes_in_place_is_seen(name):
    network, x = made(COVERED[name][0]), COVERED[name][1]()
    engine = TangentKernel(network, x)
    for _ in range(3):
        engine(network)
    x.mul_(2.0)
    for _ in range(3):
        torch.testing.assert_close(engine(network), slow(network, x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", SEE_THE_INPUTS)
def test_buffers_before_the_first_layer_may_change(name):
    x = COVERED[name][1]()
    network = Calls(lambda s, x: s.net(x - s.mean), net=made(COVERED[name][0]))
    network.register_buffer("mean", torch.zeros_like(x[0]))
    engine = TangentKernel(network, x)
    for mean in (0.0, 0.0, 0.0, 1.0, 0.0, 2.0):
        network.mean.fill_(mean)
        torch.testing.assert_close(engine(network), slow(network, x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AvgPool2d(2)])
def test_a_dilation_may_change(pool):
    network = made(lambda: nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), pool, nn.Flatten(), nn.Linear(48, 4)))
    x = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    engine = TangentKernel(network, x)
    for dilation in (1, 1, 1, 2, 2, 1):
        network[0].dilation = network[0].padding = (dilation, dilation)
        torch.testing.assert_close(engine(network), slow(network, x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "seen"), [("lenet", [1, 6, 1, 6, 6, 6, 6]), ("lenet, average pooling", [1, 6, 1, 6, 6, 6, 6]), ("pooled", [1, 1])]
)
def test_patches_of_the_inputs_are_made_twice_at_most(name, seen, monkeypatch):
    made_of: list[int] = []
    windows = _factors._windows
    monkeypatch.setattr(_factors, "_windows", lambda value, use: made_of.append(value.shape[1]) or windows(value, use))
    network, x = made(COVERED[name][0]), COVERED[name][1]()
    engine = TangentKernel(network, x)
    for _ in range(5):
        engine(network)
    assert made_of == seen  # channels: the inputs have one


def test_two_convolutions_of_the_same_inputs_are_kept_apart():
    def sides(s, x):
        return s.out(torch.cat([s.first(x).flatten(1), s.second(x).flatten(1)], 1))

    network = made(lambda: Calls(sides, first=nn.Conv2d(1, 2, 3), second=nn.Conv2d(1, 2, 5), out=nn.Linear(104, 40)))
    x = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    engine = TangentKernel(network, x)
    for _ in range(3):
        torch.testing.assert_close(engine(network), slow(network, x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("place", [1, 2])
@pytest.mark.parametrize("first", [0, 1])
def test_what_follows_a_convolution_may_change(place, first):
    """Its patches are kept in another form where a pooling's winners are taken; of these sizes both have as many numbers."""
    forms = (nn.ReLU(), nn.Tanh()) if place == 1 else (nn.MaxPool2d(2), nn.AvgPool2d(2))
    layers = nn.Conv2d(1, 2, 2, stride=3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(2, 40)
    network = made(lambda: nn.Sequential(*layers))  # of other inputs its few units may all be silent
    x = torch.randn(5, 1, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    engine = TangentKernel(network, x)
    assert engine.explain()["contraction"][0] == "gradient (pooled)"
    for form in (first, first, first, 1 - first, 1 - first, 1 - first, first):
        network[place] = forms[form]
        torch.testing.assert_close(engine(network), slow(network, x), rtol=1e-11, atol=1e-12)


def test_options_may_change_in_place():
    def convolved(s, x):
        return s.out(F.conv2d(x, s.w, padding=s.pad, dilation=s.pad).flatten(1))

    network = made(lambda: Calls(convolved, w=torch.randn(2, 1, 3, 3), out=nn.Linear(128, 40)))
    network.pad = [1, 1]
    x = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    engine = TangentKernel(network, x)
    for pad in (1, 1, 1, 2, 2, 1):
        network.pad[:] = [pad, pad]
        torch.testing.assert_close(engine(network), slow(network, x), rtol=1e-11, atol=1e-12)


def test_views_are_not_kept():
    """Patches that do not overlap are a view of the inputs, which are larger where a stride leaves some out."""
    network = made(lambda: nn.Sequential(nn.Conv1d(4, 8, 1, stride=32), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10)))
    x = torch.randn(20, 4, 512, dtype=torch.float64)
    engine = TangentKernel(network, x)
    assert engine.explain()["contraction"].str.startswith("gradient").any()
    for _ in range(3):
        torch.testing.assert_close(engine(network), slow(network, x), rtol=1e-11, atol=1e-12)
    assert not any(key[0] == "patches" and held for key, held in engine._kept._operands.items())


def test_two_sets_are_kept_apart():
    x, x2 = torch.randn(7, 6, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    engine = TangentKernel(_two_layer(), x, x2)
    for _ in range(3):
        torch.testing.assert_close(engine(_two_layer()), slow(_two_layer(), x, x2), rtol=1e-11, atol=1e-12)


def test_products_of_what_has_changed_are_forgotten():
    kept, operands = Kept(10_000), torch.randn(10, 1, 10)

    def product(values):
        factor = kept.settled("left", Factor(None, [values]))
        return kept.product([0], [1.0], factor, factor, lambda: values[:, 0] @ values[:, 0].T)

    for values in (operands, operands, operands, operands + 1.0, operands):
        assert torch.equal(product(values.clone()), values[:, 0] @ values[:, 0].T)
    assert _kept_bytes(kept) == 0


def _kept_bytes(kept):
    operands = [each for held in kept._operands.values() for each in held]
    return sum(each.nbytes for each in operands + [product for _, product in kept._made.values()])


def test_what_is_made_anew_fits_as_well():
    kept, use = Kept(1000), Use("conv", ParameterView("w", (1,), (1,), 0), torch.zeros(100), 0, {"stride": 4})
    for count in (10, 10, 10):
        kept.patches(("left", 0), "by place", 0, use, lambda count=count: torch.zeros(count))
    assert _kept_bytes(kept) == 440
    kept.patches(("left", 0), "by place", 0, dataclasses.replace(use, options={"stride": 1}), lambda: torch.zeros(1000))
    assert _kept_bytes(kept) == 0  # nor are the inputs looked at again


@pytest.mark.parametrize("limit", [-1, 0, 400, 1200, 10_000])
def test_no_more_is_kept_than_allowed(limit):
    kept, calls = Kept(limit), []
    operands = torch.randn(10, 1, 10)  # 400 bytes, as their product

    def compute():
        calls.append(1)
        return operands[:, 0] @ operands[:, 0].T

    for _ in range(4):
        factor = kept.settled("left", Factor(None, [operands.clone()]))
        assert torch.equal(kept.product([0], [1.0], factor, factor, compute), operands[:, 0] @ operands[:, 0].T)
        assert _kept_bytes(kept) <= max(limit, 0)
    assert len(calls) == (2 if limit >= 800 else 4)


@pytest.mark.parametrize(("memory", "cache"), [(2**29, 2**26), (2**29, 1), (1, 2**26)])
def test_gradients_that_come_to_other_positions_than_in_the_survey(memory, cache, monkeypatch):
    """The first samples read the last position only; the maximum of later ones lies elsewhere."""
    monkeypatch.setattr(_plan, "_CACHE", cache)  # whether all samples are in one pass
    network = made(lambda: Calls(lambda s, x: s.head(s.first(x).relu().amax(1)), first=nn.Linear(4, 6), head=nn.Linear(6, 2)))
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    with torch.no_grad():
        network.first.weight.abs_()
        network.first.bias.zero_()
    x[:2, 2] = 10.0 + x[:2, 2].abs()
    x[3, 0] = 20.0 + x[3, 0].abs()
    for outputs in ("full", "trace"):
        engine = TangentKernel(network, x, outputs=outputs, memory=memory)
        assert any(unit.idle for unit in engine._plan.units)
        assert not engine._collector.everywhere
        for _ in range(3):
            torch.testing.assert_close(engine(network), slow(network, x, outputs=outputs), rtol=1e-11, atol=1e-12)
        assert engine._collector.everywhere


READ_OUTS = {"last": lambda h: h[:, -1], "first": lambda h: h[:, 0], "mean": lambda h: h.mean(1), "largest": lambda h: h.amax(1)}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("lengths", [(3, 5), (5, 3)])
@pytest.mark.parametrize("read_out", READ_OUTS)
def test_sequences_of_two_lengths(read_out, lengths, bias):
    parts = {"first": nn.Linear(4, 6, bias=bias), "head": nn.Linear(6, 2, bias=bias)}
    network = made(lambda: Calls(lambda s, x: s.head(READ_OUTS[read_out](s.first(x).tanh())), **parts))
    x, x2 = (torch.randn(3, length, 4, dtype=torch.float64) for length in lengths)
    for outputs in ("full", "trace"):
        engine = TangentKernel(network, x, x2, outputs=outputs)
        for _ in range(3):
            torch.testing.assert_close(engine(network), slow(network, x, x2, outputs=outputs), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["transformer", "tied embedding and read-out"])
def test_networks_of_another_precision_are_served(name):
    network, x = made(COVERED[name][0]), COVERED[name][1]()
    engine, rates = TangentKernel(network, x), {parameter: 0.3 for parameter, _ in network.named_parameters()}
    for _ in range(3):
        engine(network.float(), rates=rates)
    torch.testing.assert_close(engine(network.double(), rates=rates), slow(network, x, rates=rates), rtol=1e-11, atol=1e-12)


def test_convolutions_read_at_one_position_keep_that_position_alone():
    network = made(lambda: nn.Sequential(nn.Conv1d(3, 16, 3), nn.Tanh(), Calls(lambda s, x: s.head(x[:, :, -1]), head=nn.Linear(16, 2))))
    x = torch.randn(4, 3, 9, dtype=torch.float64)
    engine = TangentKernel(network, x, outputs="trace")
    assert any(unit.contraction == "gram" and len(unit.idle) == 6 for unit in engine._plan.units)
    torch.testing.assert_close(engine(network), slow(network, x, outputs="trace"), rtol=1e-11, atol=1e-12)
    assert not engine._collector.everywhere


def test_a_read_out_at_the_last_position_keeps_that_position_alone():
    engine = TangentKernel(made(Transformer), COVERED["transformer"][1](), outputs="trace")
    engine(made(Transformer))
    assert any(unit.idle for unit in engine._plan.units)
    assert not engine._collector.everywhere
