"""The engine against slow Jacobians: every way to use a parameter, chunks, stacks, estimates, and what it refuses."""

import copy
import warnings
from itertools import accumulate

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call, stack_module_state
from torch.nn.utils.parametrize import register_parametrization as parametrize
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint
from torchvision.models import resnet18
from zoo import COVERED, FALLBACK, Calls, LeNet, Transformer, jacobian, made, resnet, slow

from richlearn.errors import ParameterError
from richlearn.kernels import TangentKernel, empirical_ntk, estimated_ntk, kernel_distance, layer_ntks
from richlearn.networks import MLP

pytestmark = pytest.mark.filterwarnings("ignore:.*comes from its Jacobian")
OUTPUTS = ["full", "trace", "sum"]
EVERY = {**COVERED, **{name: entry[:2] for name, entry in FALLBACK.items()}}


@pytest.fixture(autouse=True, scope="module")
def _uninitialised_memory_holds_no_numbers():
    """Kernels begin in such memory: an entry that is read before it is written, or never written, is seen."""
    empty = torch.empty
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", lambda *size, **options: empty(*size, **options).fill_(torch.tensor(float("nan"))))
        yield


def _error(found, expected):
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", EVERY)
def test_kernels_are_exact(name):
    network, x = made(EVERY[name][0]), EVERY[name][1]()
    other = x[[1, 3, 0]]
    for outputs in OUTPUTS:
        assert _error(empirical_ntk(network, x, outputs=outputs), slow(network, x, outputs=outputs)) < 1e-11
        assert _error(empirical_ntk(network, x, other, outputs=outputs), slow(network, x, other, outputs=outputs)) < 1e-11


@pytest.mark.parametrize("name", COVERED)
def test_float32_kernels_are_right_to_1e_5(name):
    network, x = made(COVERED[name][0]), COVERED[name][1]()
    expected = slow(network, x)
    single = x.float() if x.is_floating_point() else x
    assert _error(empirical_ntk(network.float(), single), expected) < 1e-5


@pytest.mark.parametrize("name", COVERED)
def test_nothing_that_is_covered_takes_a_jacobian(name):
    assert TangentKernel(made(COVERED[name][0]), COVERED[name][1]()).fallback == {}


@pytest.mark.parametrize("name", FALLBACK)
def test_jacobians_are_taken_of_these_parameters_alone(name):
    build, probe, parameters = FALLBACK[name]
    assert set(TangentKernel(made(build), probe()).fallback) == parameters


@pytest.mark.parametrize(
    "name", ["lenet", "transformer", "tied embedding and read-out", "resnet, batch norm", "merged axes, position first"]
)
@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("memory", [1, 20_000, 200_000])
def test_little_memory_gives_the_same_kernel(name, outputs, memory):
    network, x = made(COVERED[name][0]), COVERED[name][1]()
    engine = TangentKernel(network, x, outputs=outputs, memory=memory)
    assert memory > 1 or engine.explain().attrs["samples at once"] == 1
    torch.testing.assert_close(engine(network), empirical_ntk(network, x, outputs=outputs), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(
        empirical_ntk(network, x, x[:3], outputs=outputs, memory=memory), slow(network, x, x[:3], outputs=outputs), rtol=1e-10, atol=1e-10
    )


def _tower() -> nn.Module:
    layers = nn.Sequential(*(nn.Sequential(nn.Linear(128, 128), nn.ReLU()) for _ in range(4)))
    return Calls(lambda s, x: s.out(s.layers(s.first(x)).mean(1)), first=nn.Linear(4, 128), layers=layers, out=nn.Linear(128, 3))


def _wide_patches() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 7), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(144, 40))


def _attending(s, x):
    h = s.first(x)
    return s.out((h + s.attention(h, h, h, need_weights=False)[0]).mean(1))


def _attention() -> nn.Module:
    return Calls(_attending, first=nn.Linear(8, 32), attention=nn.MultiheadAttention(32, 4, batch_first=True), out=nn.Linear(32, 5))


def _attention_by_hand() -> nn.Module:
    def attend(s, x):
        q, k, v = (layer(s.first(x)).unflatten(-1, (8, -1)).transpose(1, 2) for layer in (s.q, s.k, s.v))
        return s.out(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2).mean(1))

    return Calls(attend, first=nn.Linear(8, 32), **{name: nn.Linear(32, 32) for name in "qkv"}, out=nn.Linear(32, 5))


def _upsampled() -> nn.Module:
    layers = nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=4), nn.Conv2d(16, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 5))


def _lstm() -> nn.Module:
    return Calls(lambda s, x: s.out(s.rnn(x)[0][:, -1]), rnn=nn.LSTM(16, 32, batch_first=True), out=nn.Linear(32, 5))


def _force() -> nn.Module:
    def differentiated(s, x):
        with torch.enable_grad():
            x = x.requires_grad_()
            return torch.autograd.grad(s.energy(x).sum(), x, create_graph=True)[0]

    return Calls(differentiated, energy=nn.Sequential(nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1)))


@pytest.mark.parametrize("outputs", ["full", "trace"])
@pytest.mark.parametrize(
    ("build", "shape", "limit"),
    [
        (_attention, (32, 64, 8), 2**24),
        (_attention_by_hand, (16, 96, 8), 2**24),
        (_upsampled, (32, 3, 12, 12), 2**24),
        (_lstm, (16, 24, 16), 2**23),
        (_force, (8, 10), 2**21),
    ],
)
def test_memory_of_what_no_formula_knows_stays_within_the_limit(build, shape, limit, outputs):
    """Attention's weights, enlarged images, Jacobians."""
    network, x = made(build, torch.float32), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    engine = TangentKernel(network, x, outputs=outputs, memory=limit)
    planned = engine.explain().attrs["bytes"]
    assert 0.6 * planned < _peak(lambda: [engine(network).nbytes for _ in range(3)]) < min(limit, 1.1 * planned)


@pytest.mark.parametrize(
    ("build", "shape", "outputs", "limit"),
    [
        (_tower, (60, 32, 4), "sum", 2**24),
        (_tower, (60, 32, 4), "full", 2**24),
        (_tower, (60, 24, 4), "sum", 2**25),  # all samples in one pass
        (_wide_patches, (96, 3, 18, 18), "trace", 2**24),
    ],
)
def test_memory_stays_within_the_limit(build, shape, outputs, limit):
    network, x = made(build, torch.float32), torch.randn(shape, generator=torch.Generator().manual_seed(0))
    engine = TangentKernel(network, x, outputs=outputs, memory=limit)
    assert engine.explain()["contraction"].str.startswith("gradient").any()
    assert 2**20 < _peak(lambda: [engine(network).nbytes for _ in range(3)]) < limit
    engine = TangentKernel(network, x, outputs=outputs, memory=limit)
    engine._kept.limit = 0
    assert 2**20 < _peak(lambda: [engine(network).nbytes]) < 1.12 * engine.explain().attrs["bytes"]


def _peak(evaluate):
    """Bytes that were allocated at once, beyond the kernel, whose size `evaluate` gives."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        size = evaluate()[0]
    allocated = sorted((event.start_ns(), event.nbytes()) for event in seen.profiler.kineto_results.events() if event.name() == "[memory]")
    return max(accumulate(nbytes for _, nbytes in allocated)) - size


@pytest.mark.parametrize("name", ["lenet", "transformer", "lstm", "one Linear twice", "halves of one matrix"])
@pytest.mark.parametrize("outputs", OUTPUTS)
def test_layers_add_up_to_the_kernel(name, outputs):
    network, x = made(EVERY[name][0]), EVERY[name][1]()
    layers = layer_ntks(network, x, outputs=outputs)
    assert set(layers) <= {parameter.rpartition(".")[0] or parameter for parameter, _ in network.named_parameters()}
    torch.testing.assert_close(sum(layers.values()), empirical_ntk(network, x, outputs=outputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_a_layers_kernel_is_that_of_its_parameters_alone(outputs):
    network, x = made(LeNet), COVERED["lenet"][1]()
    layers = layer_ntks(network, x, outputs=outputs)
    for name in ("0", "7", "11"):
        alone = copy.deepcopy(network).requires_grad_(False)
        alone.get_submodule(name).requires_grad_(True)
        torch.testing.assert_close(layers[name], slow(alone, x, outputs=outputs), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["lenet", "transformer", "resnet, batch norm", "tied autoencoder", "bilinear", "a gate for each position"])
@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_rates_weigh_the_parameters(name, outputs):
    network, x = made(EVERY[name][0]), EVERY[name][1]()
    rates = {parameter: 0.3 + 0.2 * i for i, (parameter, _) in enumerate(network.named_parameters())}
    if len(rates) > 1:
        rates.popitem()  # an absent name means 1
        rates[next(iter(rates))] = 0.0
    expected = slow(network, x, outputs=outputs, rates=rates)
    assert _error(empirical_ntk(network, x, outputs=outputs, rates=rates), expected) < 1e-11


@pytest.mark.parametrize("name", COVERED)
def test_kernels_are_symmetric_and_positive_semidefinite(name):
    network, x = made(COVERED[name][0]), COVERED[name][1]()
    for outputs in OUTPUTS:
        kernel = empirical_ntk(network, x, outputs=outputs)
        assert torch.equal(kernel, kernel.T)
        assert float(torch.linalg.eigvalsh(kernel).min()) > -1e-12 * float(kernel.trace())


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_blocks_of_a_larger_kernel_are_mirrored(outputs):
    network, x = made(lambda: MLP(6, 3, width=7, depth=2)), torch.randn(300, 6, dtype=torch.float64)
    found = empirical_ntk(network, x, outputs=outputs)
    assert torch.equal(found, found.T)
    assert _error(found, slow(network, x, outputs=outputs)) < 1e-12


def test_torchvisions_resnet18():
    network, x = made(lambda: resnet18(num_classes=2)), torch.randn(3, 3, 32, 32, dtype=torch.float64)
    engine = TangentKernel(network, x)
    assert engine.fallback == {}
    assert _error(engine(network), slow(network, x)) < 1e-11


@pytest.mark.parametrize("seed", range(3))
def test_an_engine_serves_later_values_of_its_network(seed):
    network, x = made(LeNet), COVERED["lenet"][1]()
    engine = TangentKernel(network, x, outputs="trace")
    later = made(LeNet, seed=seed)
    torch.testing.assert_close(engine(later), slow(later, x, outputs="trace"), rtol=1e-11, atol=1e-12)


def test_a_stack_gives_the_kernels_of_its_members():
    members = [made(lambda: MLP(6, 2, width=5, depth=2), seed=seed) for seed in range(3)]
    parameters, _ = stack_module_state(members)
    x = torch.randn(4, 6, dtype=torch.float64)
    found = TangentKernel(members[0], x).stack(members[0], parameters)
    torch.testing.assert_close(found, torch.stack([slow(member, x) for member in members]), rtol=1e-11, atol=1e-12)


def test_a_stacks_members_have_their_own_buffers():
    members = [made(lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)), seed=seed) for seed in range(3)]
    for seed, member in enumerate(members):
        member[1].running_mean.fill_(float(seed))
        member[1].running_var.fill_(1.0 + seed)
    x = torch.randn(4, 6, dtype=torch.float64)
    engine = TangentKernel(members[0], x)
    expected = torch.stack([slow(member, x) for member in members])
    torch.testing.assert_close(engine.stack(members[0], *stack_module_state(members)), expected, rtol=1e-11, atol=1e-12)
    found = engine(members[0], values=members[2].state_dict())
    torch.testing.assert_close(found, expected[2], rtol=1e-11, atol=1e-12)


def test_states_name_tied_weights_twice():
    network, x = made(COVERED["one Linear twice"][0]), COVERED["one Linear twice"][1]()
    network.alias = next(network.children())
    assert len(network.state_dict()) > len(list(network.parameters()))
    torch.testing.assert_close(TangentKernel(network, x)(made(lambda: network, seed=1), values=network.state_dict()), slow(network, x))


_NETWORK = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        (lambda kernel: kernel(_NETWORK[:1]), "`Sequential` has no parameter `2.bias`: the network of this kernel had one"),
        (lambda kernel: kernel(_NETWORK, values={"w": torch.zeros(5)}), "`w` is no parameter or buffer of `Sequential`"),
        (lambda kernel: kernel(_NETWORK, values={"0.bias": torch.zeros(4)}), r"`0.bias` must have shape \(5,\), got \(4,\)"),
        (lambda kernel: kernel(_NETWORK, rates={"0.bias": -1.0}), "`rates` must hold numbers of at least 0, got -1.0 for `0.bias`"),
        (lambda kernel: kernel(_NETWORK, rates={"0.bias": float("inf")}), "`rates` must hold numbers of at least 0, got inf for `0.bias`"),
        (
            lambda kernel: kernel.layers(_NETWORK, rates={"bias": 1.0}),
            r"`rates` names parameters that the network does not have: \['bias'\]",
        ),
        (lambda kernel: kernel.stack(_NETWORK, {}), "the same number of members in each of its tensors, got none"),
        (
            lambda kernel: kernel.stack(_NETWORK, {"0.bias": torch.zeros(2, 5), "2.bias": torch.zeros(3, 2)}),
            r"the same number of members in each of its tensors, got \[2, 3\]",
        ),
    ],
)
def test_what_a_kernel_is_given_is_checked(evaluate, message):
    with pytest.raises(ParameterError, match=message):
        evaluate(TangentKernel(_NETWORK, torch.randn(4, 6)))


@pytest.mark.parametrize("made_inside", [True, False])
def test_a_validation_step_can_take_kernels(made_inside):
    """Lightning validates in inference mode, whose tensors have no gradients."""
    network, x = made(LeNet), COVERED["lenet"][1]()
    engine = TangentKernel(network, x)
    expected = slow(network, x)
    with torch.inference_mode():
        inside = copy.deepcopy(network) if made_inside else network
        for found in (engine(inside), sum(engine.layers(inside).values()), empirical_ntk(inside, x.clone())):
            torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)
    assert not engine(network).is_inference()


def test_output_scale_does_not_turn_the_kernel():
    x = COVERED["lenet"][1]()
    first, second = made(LeNet), made(LeNet, seed=1)
    scaled = [made(lambda network=network: Calls(lambda s, x: 37.0 * s.net(x), net=network)) for network in (first, second)]
    plain = kernel_distance(*(empirical_ntk(network, x) for network in (first, second)))
    assert kernel_distance(*(empirical_ntk(network, x) for network in scaled)) == pytest.approx(plain, rel=1e-10)


# ---- random networks -------------------------------------------------------------------------------------------------


@st.composite
def _networks(draw):
    """A chain of random layers on images, flattened somewhere, with its probe."""
    torch.manual_seed(draw(st.integers(0, 2**32 - 1)))
    channels, size = draw(st.integers(1, 3)), draw(st.integers(4, 7))
    shape, layers = (channels, size, size), []
    for _ in range(draw(st.integers(0, 3))):
        groups = draw(st.sampled_from([g for g in (1, 2, 3) if shape[0] % g == 0]))
        out, kernel = groups * draw(st.integers(1, 3)), draw(st.integers(1, min(3, shape[1])))
        stride, padding, bias = draw(st.integers(1, 2)), draw(st.integers(0, kernel - 1)), draw(st.booleans())
        layers.append(nn.Conv2d(shape[0], out, kernel, stride, padding, groups=groups, bias=bias))
        after = (shape[1] + 2 * padding - kernel) // stride + 1
        shape = (out, after, after)
        following = [nn.ReLU(), nn.ReLU(inplace=True), nn.Tanh(), nn.GELU(), nn.BatchNorm2d(out)]
        grouped = [nn.GroupNorm(1, out)] if out * after > 1 else []  # PyTorch refuses a single value
        layers.append(draw(st.sampled_from(following + grouped)))
    layers.append(nn.Flatten(*draw(st.sampled_from([(1,), (2,)]))))
    features = shape[1] * shape[2] if layers[-1].start_dim == 2 else shape[0] * shape[1] * shape[2]
    for _ in range(draw(st.integers(0, 2))):
        width = draw(st.integers(1, 5))
        layers += [
            nn.Linear(features, width, bias=draw(st.booleans())),
            draw(st.sampled_from([nn.LeakyReLU(), nn.SiLU(), nn.LayerNorm(width)])),
        ]
        features = width
    layers.append(nn.Linear(features, draw(st.integers(1, 3))))
    return nn.Sequential(*layers), torch.randn(draw(st.integers(1, 4)), channels, size, size, dtype=torch.float64)


@given(_networks(), st.sampled_from(OUTPUTS), st.sampled_from([1, 2**29]))
@settings(max_examples=60, deadline=None)
def test_random_networks(network_and_probe, outputs, memory):
    network, x = network_and_probe
    made(lambda: network)
    expected = slow(network, x, outputs=outputs)
    found = empirical_ntk(network, x, outputs=outputs, memory=memory)
    assert float((found - expected).norm()) <= 1e-11 * float(expected.norm())


# ---- estimates -------------------------------------------------------------------------------------------------------


def test_the_estimate_is_the_mean_over_sign_combinations():
    network, x = made(LeNet), COVERED["lenet"][1]()
    signs = torch.randint(2, (4, 3), generator=torch.Generator().manual_seed(7)) * 2.0 - 1.0
    first = jacobian(network, x)
    expected = torch.einsum("kc,icp,jdp,kd->ij", signs.double(), first, first, signs.double()) / 4  # k combination
    torch.testing.assert_close(estimated_ntk(network, x, samples=4, seed=7), expected, rtol=1e-11, atol=1e-12)


def test_the_estimate_is_unbiased():
    network, x = made(Transformer), COVERED["transformer"][1]()
    exact = slow(network, x, outputs="trace")
    found = torch.stack([estimated_ntk(network, x, samples=8, seed=seed) for seed in range(40)])
    standard_error = found.std(0) / 40**0.5
    assert bool(((found.mean(0) - exact).abs() < 5 * standard_error + 1e-12).all())


def test_the_sum_of_the_outputs_is_another_quantity():
    network, x = made(LeNet), COVERED["lenet"][1]()
    assert _error(empirical_ntk(network, x, outputs="sum"), slow(network, x, outputs="trace")) > 0.05


# ---- the network stays as it was -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lenet", "resnet, batch norm", "transformer", "lstm", "input overwritten"])
def test_the_network_and_the_probe_stay_as_they_were(name):
    network, x = made(EVERY[name][0]), EVERY[name][1]()
    before, probe, stream = copy.deepcopy(network.state_dict()), x.clone(), torch.get_rng_state()
    calls = []
    hook = network.register_forward_hook(lambda *_: calls.append(1))
    empirical_ntk(network, x)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert torch.equal(x, probe)
    assert torch.equal(stream, torch.get_rng_state())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert list(network._forward_hooks) == [hook.id]
    assert not any(module.training for module in network.modules())


def test_gradients_that_are_there_stay():
    network, x = made(LeNet), COVERED["lenet"][1]()
    network(x).sum().backward()
    before = [p.grad.clone() for p in network.parameters()]
    empirical_ntk(network, x)
    assert all(torch.equal(p.grad, grad) for p, grad in zip(network.parameters(), before, strict=True))


def test_buffers_that_a_forward_pass_counts_in_stay():
    def count(network, x):
        network.seen.add_(1)
        return network.layer(x)

    network = made(lambda: Calls(count, layer=nn.Linear(6, 2)))
    network.register_buffer("seen", torch.tensor(0))
    empirical_ntk(network, COVERED["mlp"][1]())
    assert int(network.seen) == 0


@pytest.mark.parametrize("frozen", ["0", "3", "11"])
def test_frozen_parameters_do_not_enter(frozen):
    network, x = made(LeNet), COVERED["lenet"][1]()
    network.get_submodule(frozen).requires_grad_(False)
    assert _error(empirical_ntk(network, x), slow(network, x)) < 1e-11


def test_all_parameters_enter_where_every_one_is_frozen():
    network, x = made(LeNet), COVERED["lenet"][1]()
    expected = slow(network, x)
    assert _error(empirical_ntk(network.requires_grad_(False), x), expected) < 1e-11
    assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_samples(count):
    network, x = made(resnet), COVERED["resnet, batch norm"][1]()[:count]
    assert _error(empirical_ntk(network, x), slow(network, x)) < 1e-11


def test_probes_that_are_not_contiguous():
    network, x = made(LeNet), torch.randn(12, 12, 1, 5, dtype=torch.float64).permute(3, 2, 1, 0)
    assert _error(empirical_ntk(network, x), slow(network, x)) < 1e-11


def test_a_network_that_has_diverged_gives_nan():
    network, x = made(LeNet), COVERED["lenet"][1]()
    with torch.no_grad():
        network[3].weight.fill_(float("nan"))
    assert bool(empirical_ntk(network, x).isnan().all())


def test_a_constant_network_has_a_kernel_of_zeros():
    network = made(lambda: Calls(lambda s, x: x[:, :2] * 1.0, layer=nn.Linear(6, 2)))
    assert torch.equal(empirical_ntk(network, COVERED["mlp"][1]()), torch.zeros(10, 10, dtype=torch.float64))


def test_cancelling_outputs_are_no_coupling_of_samples():
    network = made(
        lambda: Calls(lambda s, x: s.out(s.hidden(x).relu()) - s.out(s.hidden(x).relu()), hidden=nn.Linear(6, 4), out=nn.Linear(4, 1))
    )
    assert float(empirical_ntk(network, COVERED["mlp"][1]()).abs().max()) < 1e-14


# ---- what a review found ---------------------------------------------------------------------------------------------


class _Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx, w):
        return w.view_as(w)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 0.5


def _masked_row(network, x):
    mask = torch.tensor([[True, True, True], [False, False, True], [False, False, False]])
    return network.out(network.attention(x, x, x, attn_mask=mask, need_weights=False)[0].mean(1))


def _added_to_a_view(network, x):
    hidden = network.layer(x)
    hidden.view(-1, 3).add_(network.bias)
    return network.out(hidden.tanh())


def _shared_storage():
    network = Calls(lambda s, x: F.linear(F.linear(x, s.a).tanh(), s.b), a=torch.randn(3, 6), b=torch.randn(2, 3))
    flat = torch.randn(24, dtype=torch.float64)
    network.a, network.b = nn.Parameter(flat[:18].view(3, 6)), nn.Parameter(flat[18:].view(2, 3))
    return network


class _Quiet(torch.autograd.Function):
    """No gradient at all where none arrives, which is not known before it does: it cannot be taken for several cotangents at once."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient if gradient.any() else None


def _two_quiet_outputs(network, x):
    first, second = network.layer(x).tanh(), network.layer(2 * x).tanh()
    return torch.cat([_Quiet.apply(first).sum(1, keepdim=True), _Quiet.apply(second).sum(1, keepdim=True)], dim=1)


REVIEWED = {
    "a gradient for some cotangents only": (_two_quiet_outputs, (5, 6)),
    "one option for both axes": (
        lambda s, x: F.conv2d(x, s.w.view(2, 1, 2, 3), stride=[2], padding=(1,), dilation=(2,)).flatten(1),
        (5, 1, 7, 7),
    ),
    "samples in another order": (lambda s, x: s.out(s.layer(x.flip(0)).tanh().flip(0)), (5, 6)),
    "gradient altered in a view": (lambda s, x: F.linear(x, _Halved.apply(s.w)), (5, 6)),
    "another leaf on the same values": (lambda s, x: F.linear(x, s.w.detach().requires_grad_()) + s.out(s.layer(x)), (5, 6)),
    "a weight of one axis": (lambda s, x: F.linear(x, s.row).tanh(), (5, 3, 6)),
    "added in place to a view": (_added_to_a_view, (5, 6)),
    "a row of attention that sees nothing": (_masked_row, (5, 3, 6)),
    "one number a sample, scaled": (lambda s, x: s.layer(x).sum(1) * s.scalar + s.scalar, (5, 6)),
    "named operand": (lambda s, x: torch.mm(x, mat2=s.w.T), (5, 6)),
}


@pytest.mark.parametrize("name", REVIEWED)
def test_what_a_review_found_wrong_is_right(name):
    function, shape = REVIEWED[name]
    parts = {"w": torch.randn(2, 6), "row": torch.randn(6), "bias": torch.randn(3), "scalar": torch.randn(())}
    layers = {"layer": nn.Linear(6, 3), "out": nn.Linear(6 if "row" in name else 3, 2)}
    network = made(lambda: Calls(function, **parts, **layers, attention=nn.MultiheadAttention(6, 2, batch_first=True)))
    x = torch.randn(*shape, dtype=torch.float64)
    for outputs in OUTPUTS:
        assert _error(empirical_ntk(network, x, outputs=outputs), slow(network, x, outputs=outputs)) < 1e-11


def test_batch_normalisation_in_float32_between_layers_of_less_precision():
    mixed = made(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3), nn.Flatten()), torch.float32)
    x = torch.randn(4, 2, 6, 6)
    exact = empirical_ntk(mixed, x)
    mixed[0].bfloat16(), mixed[2].bfloat16()
    assert _error(empirical_ntk(mixed, x.bfloat16()).float(), exact) < 0.03  # bfloat16 has 8 bits


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_layers_of_less_precision(outputs):
    network, x = made(lambda: nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), torch.float32), torch.randn(4, 6)
    exact = empirical_ntk(network, x, outputs=outputs)
    automatic = Calls(lambda s, x: s.network(x), network=network)

    def forward(x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return automatic.network(x)

    automatic.forward = forward
    assert _error(empirical_ntk(automatic, x, outputs=outputs), exact) < 0.03
    mixed = Calls(lambda s, x: s.rest(s.norm(x).bfloat16()), norm=network[0], rest=copy.deepcopy(network[1:]).bfloat16())
    found = empirical_ntk(mixed, x, outputs=outputs)
    assert found.dtype == torch.float32
    assert _error(found, exact) < 0.03


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("memory", [1, 2**29])
def test_attention_whose_input_is_overwritten(batch_first, count, memory):
    def added(network, x, in_place):
        h = network.embed(x if batch_first else x.transpose(0, 1))
        attended = network.attention(h, h, h, need_weights=False)[0]
        h = h.add_(attended) if in_place else h + attended
        return network.out(h.mean(1 if batch_first else 0))

    parts = {"embed": nn.Linear(6, 6), "out": nn.Linear(6, 2), "attention": nn.MultiheadAttention(6, 2, batch_first=batch_first)}
    overwriting, other = (
        made(lambda in_place=in_place: Calls(lambda s, x: added(s, x, in_place), **copy.deepcopy(parts))) for in_place in (True, False)
    )
    x = torch.randn(count, 4, 6, dtype=torch.float64)
    assert _error(empirical_ntk(overwriting, x, memory=memory), slow(other, x)) < 1e-11


def test_an_input_that_is_overwritten_for_one_sample_alone_is_refused():
    network = made(
        lambda: Calls(
            lambda s, x: s.out(s.layer(x if len(x) == 1 else x.clone()) + x.mul_(2.0)), layer=nn.Linear(6, 6), out=nn.Linear(6, 2)
        )
    )
    x = torch.randn(5, 6, dtype=torch.float64)
    assert torch.isfinite(empirical_ntk(network, x)).all()
    with pytest.raises(ParameterError, match="overwrites a layer's input in place"):
        empirical_ntk(network, x, memory=1)


def test_parameters_of_one_storage_are_told_apart():
    network, x, rates = _shared_storage().double(), COVERED["mlp"][1](), {"a": 3.0, "b": 0.5}
    assert _error(empirical_ntk(network, x, rates=rates), slow(network, x, rates=rates)) < 1e-11
    assert set(layer_ntks(network, x)) == {"a", "b"}


def test_outputs_that_depend_on_earlier_samples_are_refused():
    network = made(lambda: Calls(lambda s, x: s.out(s.rnn(x)[0]), rnn=nn.GRU(6, 3), out=nn.Linear(3, 2)))
    with pytest.raises(ParameterError, match="for a sample change with the samples before it: are they on the first axis"):
        empirical_ntk(network, COVERED["mlp"][1]())


def test_another_way_with_as_many_uses_is_refused():
    network, x = (
        made(lambda: Calls(lambda s, x: (s.a if float(x.mean()) > -5 else s.b)(x), a=nn.Linear(6, 2), b=nn.Linear(6, 2))),
        torch.zeros(5, 6),
    )
    x[3:] = -1e3
    with pytest.raises(ParameterError, match="uses its parameters in another way for other inputs"):
        empirical_ntk(network, x.double())


def test_dropout_switched_on_later_is_refused():
    network = made(lambda: nn.Sequential(nn.Linear(6, 3), nn.Dropout(0.01), nn.Linear(3, 2)))
    engine = TangentKernel(network, COVERED["mlp"][1]())
    with pytest.raises(ParameterError, match="draws random numbers"):
        engine(network.train())


def test_a_network_without_parameters_is_refused():
    with pytest.raises(ParameterError, match="`ReLU` has no parameters, so no tangent kernel"):
        empirical_ntk(nn.ReLU(), COVERED["mlp"][1]())


def _compiled_method(network):
    network.compile(backend="aot_eager")
    return network


COMPILED = {
    "module": lambda network: torch.compile(network, backend="aot_eager"),
    "method": _compiled_method,
    "part": lambda network: nn.Sequential(torch.compile(network[:3], backend="aot_eager"), *network[3:]),
}


@pytest.mark.parametrize("compiled", COMPILED)
def test_compiled_networks_are_looked_at_as_they_were_written(compiled):
    layers = nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 5), nn.ReLU(), nn.Bilinear(5, 5, 2)  # the last is not covered
    network = made(lambda: Calls(lambda s, x: s.last(s.rest(x), s.rest(x)), rest=nn.Sequential(*layers[:4]), last=layers[4]))
    x = COVERED["mlp"][1]()
    expected = slow(network, x)
    network.rest = COMPILED[compiled](network.rest)
    engine = TangentKernel(network, x)
    assert set(engine.fallback) == {"last.weight", "last.bias"}
    torch.testing.assert_close(engine(network), expected, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(empirical_ntk(torch.compile(network, backend="aot_eager"), x), expected, rtol=1e-11, atol=1e-12)


def test_higher_order_operations_serve():
    network = made(lambda: Calls(lambda s, x: torch.cond(s.yes, torch.sin, torch.cos, (s.layer(x),)), layer=nn.Linear(6, 2)))
    network.register_buffer("yes", torch.tensor(True))
    x = COVERED["mlp"][1]()
    torch.testing.assert_close(empirical_ntk(network, x), slow(network, x), rtol=1e-11, atol=1e-12)
    parametrize(network.layer, "weight", nn.Tanh())  # which takes its Jacobian
    torch.testing.assert_close(empirical_ntk(network, x), slow(network, x), rtol=1e-11, atol=1e-12)


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_scripted_network_is_refused():
    scripted = torch.jit.trace(nn.Linear(6, 2), torch.zeros(3, 6))
    with pytest.raises(ParameterError, match=r"`network` is a scripted module, .*: give the `nn.Module` that it was made of"):
        empirical_ntk(scripted, torch.zeros(3, 6))


def test_batch_normalisation_in_training_mode_is_refused():
    with pytest.raises(ParameterError, match=r"batch normalisation in training mode: .* call `network.eval\(\)` first"):
        empirical_ntk(made(resnet).train(), COVERED["resnet, batch norm"][1]())


def test_hand_written_batch_statistics_are_refused():
    network = made(lambda: Calls(lambda s, x: s.layer(x - x.mean(0)), layer=nn.Linear(6, 2)))
    with pytest.raises(ParameterError, match="outputs of `Calls` for a sample change with the other samples of the batch"):
        empirical_ntk(network, COVERED["mlp"][1]())


def test_normalisation_without_running_statistics_is_refused():
    network = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 2)).double().eval()
    with pytest.raises(ParameterError, match=r"without running statistics, .*: give it `track_running_stats=True`"):
        empirical_ntk(network, COVERED["mlp"][1]())


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(4, 6, dtype=torch.long), r"`MLP` cannot be called on inputs \(4, 6\) of int64: RuntimeError: mat1 and mat2"),
        (torch.ones(4, 6, dtype=torch.float32), r"`MLP` cannot be called on inputs \(4, 6\) of float32: RuntimeError: mat1 and mat2"),
        (torch.ones(4, 5, dtype=torch.float64), r"`MLP` cannot be called on inputs \(4, 5\) of float64: RuntimeError: mat1 and mat2"),
    ],
)
def test_inputs_that_a_network_does_not_take_are_refused(x, message):
    with pytest.raises(ParameterError, match=message) as caught:
        empirical_ntk(made(lambda: MLP(6, 2)), x)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_lazy_modules_are_refused():
    with pytest.raises(ParameterError, match="lazy modules without parameters yet: call it once before"):
        empirical_ntk(nn.LazyLinear(2), torch.randn(4, 6))


def _one_key(network, x):
    h = network.layer(x)[:, None]
    return F.scaled_dot_product_attention(h, h, h, dropout_p=0.5)[:, 0]


@pytest.mark.parametrize(
    "function",
    [_one_key, lambda s, x: F.rrelu(s.layer(x), training=True), lambda s, x: s.layer(x) * torch.rand(len(x), 1) + torch.rand(())],
)
def test_other_random_numbers_are_refused(function):
    network, x = made(lambda: Calls(function, layer=nn.Linear(6, 2))), COVERED["mlp"][1]()
    for seed in range(20):  # a few draws may agree on two samples
        torch.manual_seed(seed)
        with pytest.raises(ParameterError, match="draws random numbers"):
            empirical_ntk(network, x)


def test_random_numbers_without_effect_do_no_harm():
    network = made(lambda: Calls(lambda s, x: s.layer(x) + 0.0 * torch.rand(()), layer=nn.Linear(6, 2)))
    x = COVERED["mlp"][1]()
    torch.testing.assert_close(empirical_ntk(network, x), slow(network, x), rtol=1e-11, atol=1e-12)


def test_dropout_in_training_mode_is_refused():
    network = made(lambda: nn.Sequential(nn.Linear(6, 50), nn.Dropout(0.5), nn.Linear(50, 2))).train()
    with pytest.raises(ParameterError, match=r"draws random numbers \(dropout in training mode\), .* call `network.eval\(\)` first"):
        empirical_ntk(network, COVERED["mlp"][1]())


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_is_refused(reentrant):
    def run(network, x):
        return network.out(checkpoint(network.block, x.requires_grad_(), use_reentrant=reentrant))

    network = made(lambda: Calls(run, block=nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6)), out=nn.Linear(6, 2)))
    with pytest.raises(ParameterError, match="uses gradient checkpointing: switch it off"):
        empirical_ntk(network, COVERED["mlp"][1]())


def test_a_network_that_goes_other_ways_for_other_samples_is_refused():
    def choose(network, x):
        return network.first(x) if float(x.sum()) > -1e6 else network.second(x)

    network, x = made(lambda: Calls(choose, first=nn.Linear(6, 2), second=nn.Linear(6, 2, bias=False))), COVERED["mlp"][1]()
    x[4] = -1e7
    with pytest.raises(ParameterError, match="uses its parameters in another way for other inputs"):
        empirical_ntk(network, x)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda s, x: (s.layer(x),), r"must return one tensor \(n, …\) for inputs \(n, …\), got `tuple`"),
        (lambda s, x: s.layer(x).sum(), r"must return one tensor \(n, …\) .* got shape \(\)"),
        (lambda s, x: s.layer(x)[:, :0], r"must return at least one number for each sample, got shape \(2, 0\)"),
        (lambda s, x: s.layer(x).argmax(1), "must return real numbers, got torch.int64"),
    ],
)
def test_outputs_that_are_no_tensor_of_samples_are_refused(function, message):
    with pytest.raises(ParameterError, match=message):
        empirical_ntk(made(lambda: Calls(function, layer=nn.Linear(6, 2))), COVERED["mlp"][1]())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": "full", "samples": 3}, "`samples` must be at least 1 and goes with outputs=\"trace\", got 3 with 'full'"),
        ({"outputs": "trace", "samples": 0}, "`samples` must be at least 1"),
        ({"memory": 0}, "`memory` must be a number of bytes, got 0"),
        ({"x2": torch.zeros(0, 6)}, r"`x2` must hold at least one sample \(n, …\), got shape \(0, 6\)"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ParameterError, match=message):
        TangentKernel(made(lambda: MLP(6, 2)), COVERED["mlp"][1](), **options)


# ---- what it says ----------------------------------------------------------------------------------------------------


def test_a_jacobian_is_announced_once():
    class Bent(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(2, 6))

        def forward(self, x):
            return F.linear(x, self.w.exp())

    network, x = Bent().double(), COVERED["mlp"][1]()
    with pytest.warns(UserWarning, match="`Bent`: the kernel of parameter `w` comes from its Jacobian, which is slower: it is used in"):
        empirical_ntk(network, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        empirical_ntk(network, x)
    network.w = nn.Parameter(torch.randn(3, 6, dtype=torch.float64))  # another network of that name
    with pytest.warns(UserWarning, match="`Bent`: the kernel of parameter `w` comes from its Jacobian"):
        empirical_ntk(network, x)


def test_explain_shows_the_choice(capsys):
    empirical_ntk(made(LeNet), COVERED["lenet"][1](), outputs="trace", explain=True)
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("3.weight", "conv", "gradient", "gram (output)", "GFLOP", "samples at once 5"))


@pytest.mark.parametrize(("positions", "contraction"), [(1, "gram"), (50, "gradient")])
def test_the_contraction_with_fewer_operations_is_chosen(positions, contraction):
    network = made(lambda: Calls(lambda s, x: s.out(s.layer(x).relu().mean(1)), layer=nn.Linear(6, 5), out=nn.Linear(5, 2)))
    table = TangentKernel(network, torch.randn(20, positions, 6, dtype=torch.float64)).explain().set_index("parameter")
    assert table.loc["layer.weight", "contraction"] == contraction


@pytest.mark.parametrize(
    ("name", "contraction"),
    [
        ("pooled", "gradient (pooled)"),
        ("pooled, overlapping, in place", "gradient (pooled)"),
        ("pooled, then cut off in place", "gradient (pooled)"),
        ("pooled, and seen besides", "gradient"),
        ("pooled, with a hook", "gradient"),
        ("pooled over channels", "gradient"),
    ],
)
def test_gradients_behind_a_pooling_are_taken_at_its_winners(name, contraction):
    table = TangentKernel(made(COVERED[name][0]), COVERED[name][1]()).explain().set_index("parameter")
    assert table.loc["conv.weight", "contraction"] == contraction


def test_winners_of_large_patches_are_worth_several_cotangents():
    network = made(lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 9)))
    x = torch.randn(4, 1, 8, 8, dtype=torch.float64)
    chosen = [TangentKernel(network, x, outputs=outputs).explain()["contraction"][0] for outputs in ("full", "sum")]
    assert chosen == ["gradient (pooled)", "gradient"]


def test_kernels_of_functional_calls_agree():
    network, x = made(LeNet), COVERED["lenet"][1]()
    shifted = {name: p.detach() + 0.1 for name, p in network.named_parameters()}
    moved = copy.deepcopy(network)
    moved.load_state_dict(shifted)
    assert torch.allclose(functional_call(network, shifted, (x,)), moved(x))
    assert _error(TangentKernel(network, x)(network, values=shifted), slow(moved, x)) < 1e-11
