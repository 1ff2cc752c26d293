"""The empirical NTK against Jacobians that autograd builds one output at a time."""

from inspect import unwrap

import pytest
import torch
from torch import nn

from richlearn.errors import ParameterError
from richlearn.kernels import empirical_ntk
from richlearn.kernels._request import check_arguments
from richlearn.networks import MLP, TwoLayer
from richlearn.seeds import generator, global_stream

X = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
X2 = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _jacobian(network, x, rates, trained):
    """sqrt(η_p) ∂f_c(x_i)/∂θ_p, (n, c, p), by one backward pass per output."""
    rows = []
    parameters = {name: p for name, p in network.named_parameters() if name in trained}
    for value in network(x).flatten():
        slopes = torch.autograd.grad(value, list(parameters.values()), retain_graph=True)
        rows.append(torch.cat([slope.flatten() * rates.get(name, 1.0) ** 0.5 for name, slope in zip(parameters, slopes, strict=True)]))
    return torch.stack(rows).reshape(len(x), -1, len(rows[0]))


def _slow(network, x, x2=None, *, outputs, rates=None, trained=None):
    trained = trained or [name for name, _ in network.named_parameters()]
    first = _jacobian(network, x, rates or {}, trained)
    second = first if x2 is None else _jacobian(network, x2, rates or {}, trained)
    if outputs == "trace":
        return torch.einsum("icp,jcp->ij", first, second)  # i, j samples; c output; p parameter
    return torch.einsum("icp,jdp->icjd", first, second).reshape(first.shape[0] * first.shape[1], -1)


def _made(build, dtype=torch.float64):
    with global_stream(generator(0, "kernels")):
        return build().to(dtype)


NETWORKS = {
    "two-layer": lambda: TwoLayer(5, 1, width=9),
    "two-layer, biases": lambda: TwoLayer(5, 1, width=9, bias=True),
    "two-layer, 3 outputs": lambda: TwoLayer(5, 3, width=9),
    "two-layer, 3 outputs, biases": lambda: TwoLayer(5, 3, width=9, bias=True),
    "two-layer, tanh": lambda: TwoLayer(5, 2, width=9, activation="tanh", bias=True),
    "two-layer, linear": lambda: TwoLayer(5, 2, width=9, activation="linear"),
    "deep": lambda: MLP(5, 1, width=6, depth=3),
    "deep, 3 outputs": lambda: MLP(5, 3, width=6, depth=2, activation="gelu"),
}


@pytest.mark.parametrize("other", [None, X2])
@pytest.mark.parametrize("outputs", ["full", "trace"])
@pytest.mark.parametrize("name", NETWORKS)
def test_kernel_is_the_product_of_jacobians(name, outputs, other):
    network = _made(NETWORKS[name])
    torch.testing.assert_close(
        empirical_ntk(network, X, other, outputs=outputs), _slow(network, X, other, outputs=outputs), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_rates_weigh_the_parameters(name, outputs):
    network = _made(NETWORKS[name])
    rates = {parameter: 0.3 + 0.5 * i for i, (parameter, _) in enumerate(network.named_parameters())}
    rates.popitem()  # an absent name means 1
    expected = _slow(network, X, outputs=outputs, rates=rates)
    torch.testing.assert_close(empirical_ntk(network, X, outputs=outputs, rates=rates), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["two-layer, 3 outputs, biases", "deep, 3 outputs"])
@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_float32_kernels_are_right_to_1e_5(name, outputs):
    reference = _slow(_made(NETWORKS[name]), X, outputs=outputs)
    found = empirical_ntk(_made(NETWORKS[name], torch.float32), X.float(), outputs=outputs)
    assert found.dtype == torch.float32
    assert float((found.double() - reference).norm() / reference.norm()) < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("outputs", ["full", "trace"])
def test_kernels_are_symmetric_and_positive_semidefinite(name, outputs):
    kernel = empirical_ntk(_made(NETWORKS[name]), X, outputs=outputs)
    torch.testing.assert_close(kernel, kernel.T, rtol=0, atol=1e-13)
    assert float(torch.linalg.eigvalsh(kernel).min()) > -1e-10


def test_trace_sums_the_diagonal_of_every_block():
    network = _made(NETWORKS["deep, 3 outputs"])
    full = empirical_ntk(network, X, X2, outputs="full").view(7, 3, 4, 3)
    torch.testing.assert_close(empirical_ntk(network, X, X2, outputs="trace"), sum(full[:, c, :, c] for c in range(3)))


def test_the_single_linear_neuron_has_the_papers_kernel():
    network = TwoLayer(5, 1, width=1, activation="linear").double()
    w, a = network.layers[0].weight.detach(), network.layers[2].weight.detach()
    metric = 2.0 * a.square() * torch.eye(5) + 3.0 * w.T @ w  # M = η_w a² I + η_a w wᵀ
    found = empirical_ntk(network, X, rates={"layers.0.weight": 2.0, "layers.2.weight": 3.0})
    torch.testing.assert_close(found, X @ metric @ X.T)


def test_more_samples_than_a_chunk():
    network, x = _made(NETWORKS["deep"]), torch.randn(150, 5, dtype=torch.float64)
    torch.testing.assert_close(empirical_ntk(network, x), _slow(network, x, outputs="full"), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["two-layer", "deep"])
def test_frozen_parameters_do_not_enter(name):
    network = _made(NETWORKS[name])
    network.layers[0].requires_grad_(False)
    trained = [parameter for parameter, p in network.named_parameters() if p.requires_grad]
    torch.testing.assert_close(empirical_ntk(network, X), _slow(network, X, outputs="full", trained=trained))


@pytest.mark.parametrize("name", ["two-layer", "deep"])
def test_all_parameters_enter_if_every_one_is_frozen(name):
    network = _made(NETWORKS[name])
    expected = empirical_ntk(network, X)
    assert torch.equal(empirical_ntk(network.requires_grad_(False), X), expected)


class _Lookalike(nn.Module):
    """Has `layers` like a two-layer network, but is something else."""

    def __init__(self, activation: nn.Module, scale: float = 1.0, *, tied: bool = False, skip: bool = False):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 5), activation, nn.Linear(5, 5, bias=False))
        self.scale, self.skip = scale, skip
        if tied:
            self.layers[2].weight = self.layers[0].weight

    def forward(self, x):
        hidden = x
        for layer in self.layers:
            hidden = layer(hidden)
        return hidden + x if self.skip else hidden * self.scale if self.scale != 1 else hidden


LOOKALIKES = {
    "scaled output": lambda: _Lookalike(nn.ReLU(), 0.2),
    "skip connection": lambda: _Lookalike(nn.ReLU(), skip=True),
    "softmax": lambda: _Lookalike(nn.Softmax(dim=-1)),
    "layer norm": lambda: _Lookalike(nn.LayerNorm(5, elementwise_affine=False)),
    "tied weights": lambda: _Lookalike(nn.ReLU(), tied=True),
    "ReLU in place": lambda: _Lookalike(nn.ReLU(inplace=True)),
}


@pytest.mark.parametrize("name", LOOKALIKES)
def test_what_only_looks_like_two_layers_is_served_too(name):
    network = _made(LOOKALIKES[name])
    torch.testing.assert_close(empirical_ntk(network, X, outputs="trace"), _slow(network, X, outputs="trace"), rtol=0, atol=1e-12)


def test_inputs_with_positions_are_served_too():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 1))

        def forward(self, x):
            return self.layers(x).mean(1)

    network, x = _made(Mean), torch.randn(4, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(empirical_ntk(network, x, outputs="trace"), _slow(network, x, outputs="trace"))


def test_kernels_leave_the_network_alone():
    network = _made(NETWORKS["two-layer, biases"])
    network.train()
    empirical_ntk(network, X)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert all(not module._forward_hooks for module in network.modules())
    assert network.training


def test_arguments_are_checked():
    network = _made(NETWORKS["two-layer"])
    with pytest.raises(ParameterError, match='`outputs` must be "full", "trace" or "sum", got \'all\''):
        unwrap(check_arguments)("all", None, 1, X, None)  # without the tests' own type checker
    with pytest.raises(ParameterError, match=r"`rates` names parameters that the network does not have: \['layers.9.weight'\]"):
        empirical_ntk(network, X, rates={"layers.9.weight": 2.0})
