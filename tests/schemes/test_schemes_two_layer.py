"""Schemes of two-layer networks: unbalanced and λ-balanced."""

import pytest
import torch
from torch import nn

from richlearn.errors import NotApplicable, ParameterError
from richlearn.networks import MLP, Linear, TwoLayer
from richlearn.schemes import LambdaBalanced, Standard, Unbalanced

TAUS = torch.logspace(-1, 0.3, 17, dtype=torch.float64).tolist()
DELTAS = torch.linspace(-1, 1, 17, dtype=torch.float64).tolist()


def _weights(scheme, network, seed=0):
    scheme.apply(network.double(), torch.Generator().manual_seed(seed))
    w, readout = (p.detach() for p in network.parameters() if p.ndim == 2)
    return w, readout.T


@pytest.mark.parametrize("outputs", [1, 3])
def test_every_unit_starts_at_delta_on_the_papers_grid(outputs):
    network = TwoLayer(100, outputs)
    for tau in TAUS:
        for delta in DELTAS:
            w, a = _weights(Unbalanced(tau, delta), network)
            found = a.square().sum(1) - w.square().sum(1)
            assert (found - delta).abs().max() <= 1e-6 * abs(delta) + 1e-14


def test_the_base_is_the_papers_symmetrised_student():
    w, a = _weights(Unbalanced(1.0, 0.0), TwoLayer(100, 1))
    torch.testing.assert_close(w.norm(dim=1), torch.ones(50, dtype=torch.float64))
    assert set(a.flatten().tolist()) == {1.0, -1.0}
    assert torch.equal(w[:25], w[25:])
    assert torch.equal(a[:25], -a[25:])


def test_outputs_share_a_unit_sphere_and_cancel():
    network = TwoLayer(10, 4, bias=True)
    _, a = _weights(Unbalanced(0.5, 0.3), network)
    torch.testing.assert_close(a.norm(dim=1), torch.full((50,), 0.5 * Unbalanced(0.5, 0.3).alpha, dtype=torch.float64))
    assert network(torch.randn(7, 10, dtype=torch.float64)).abs().max() < 1e-14


def test_one_seed_gives_one_base_for_the_whole_grid():
    (w, a), (w2, a2) = (_weights(Unbalanced(tau, delta), TwoLayer(100, 1)) for tau, delta in ((1.0, 0.0), (0.2, -0.7)))
    torch.testing.assert_close(nn.functional.normalize(w2), w)
    assert torch.equal(a.sign(), a2.sign())


def test_half_of_the_function_does_not_depend_on_alpha():
    x = torch.randn(9, 100, dtype=torch.float64)
    halves = [x.mm(w[:25].T).relu().mm(a[:25]) for w, a in (_weights(Unbalanced(0.5, d), TwoLayer(100, 1)) for d in (-1.0, 0.0, 1.0))]
    torch.testing.assert_close(halves[0], halves[1], rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(halves[2], halves[1], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (MLP(4, 1, depth=2), "needs a network of two weight layers, `MLP` has 3"),
        (TwoLayer(4, 1, width=7), "needs an even width, got 7"),
        (TwoLayer(4, 1, activation="gelu"), "needs positively homogeneous hidden layers .* activation `gelu`"),
        (nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 1)), "`Sequential` has 2 weight layers with 0 homogeneous pairs"),
    ],
)
def test_unbalanced_says_why_it_cannot_serve(network, reason):
    with pytest.raises(NotApplicable, match=reason):
        Unbalanced(1.0, 0.5).apply(network, torch.Generator())


@pytest.mark.parametrize("parameters", [{"tau": -1.0}, {"tau": 0.0}, {"tau": 1.0, "delta": float("inf")}])
def test_unbalanced_checks_its_parameters(parameters):
    with pytest.raises(ParameterError, match=r"`(tau|delta)` must be (positive|a finite number), got"):
        Unbalanced(**parameters)


@pytest.mark.parametrize(
    ("lam", "shape"),
    [(0.7, (5, 8, 4)), (5.0, (3, 6, 6)), (0.7, (2, 6, 4)), (-0.7, (8, 2, 4)), (-3.0, (8, 1, 8)), (0.0, (3, 2, 9)), (0.0, (6, 5, 2))],
)
def test_lambda_balanced_solves_its_equation(lam, shape):
    inputs, outputs, width = shape
    activation = "relu" if width <= min(inputs, outputs) or lam else "linear"
    w, a = _weights(LambdaBalanced(lam), TwoLayer(inputs, outputs, width=width, activation=activation))
    torch.testing.assert_close(a @ a.T - w @ w.T, lam * torch.eye(width, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("lam", [-1e-6, 0.0, 1e-6])
def test_lambda_balanced_stays_exact_around_zero(lam):
    w, a = _weights(LambdaBalanced(lam), Linear(4, 4, width=4))
    torch.testing.assert_close(a @ a.T - w @ w.T, lam * torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("lam", [0.0, 2.0])
def test_lambda_balanced_keeps_the_standard_linear_function(lam):
    (w, a), (w0, a0) = (_weights(scheme, Linear(7, 5, width=3)) for scheme in (LambdaBalanced(lam), Standard()))
    torch.testing.assert_close(w.T @ a, w0.T @ a0, rtol=0, atol=1e-12)


def test_lambda_balanced_names_its_bounds():
    with pytest.raises(NotApplicable, match=r"λ > 0 needs at most as many hidden units h as outputs c: .* got h = 4 > 3"):
        LambdaBalanced(1.0).apply(TwoLayer(9, 3, width=4), torch.Generator())
    with pytest.raises(NotApplicable, match=r"λ < 0 needs at most as many hidden units h as inputs d: .* got h = 10 > 9"):
        LambdaBalanced(-1.0).apply(TwoLayer(9, 12, width=10), torch.Generator())
    with pytest.raises(NotApplicable, match=r"λ = 0 needs at most min\(c, d\) hidden units .* got h = 2 > 1"):
        LambdaBalanced(0.0).apply(TwoLayer(9, 1, width=2), torch.Generator())
    with pytest.raises(NotApplicable, match="needs a network of two weight layers"):
        LambdaBalanced(0.0).apply(MLP(4, 1), torch.Generator())
    with pytest.raises(ParameterError, match="`lam` must be a finite number"):
        LambdaBalanced(float("nan"))


def test_lambda_balanced_needs_matrices():
    network = nn.Sequential(nn.Conv1d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 1))
    with pytest.raises(NotApplicable, match=r"needs two matrices, `0.weight` and `3.weight` are convolutional or"):
        LambdaBalanced(0.0).apply(network, torch.Generator())


def test_lambda_balanced_needs_one_column_a_unit():
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6, 1))
    with pytest.raises(NotApplicable, match=r"needs two matrices, .* or have positions between them"):
        LambdaBalanced(0.0).apply(network, torch.Generator(), batch=torch.zeros(1, 3, 2))


def test_unbalanced_serves_units_behind_their_positions():
    network = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).double()
    x = torch.randn(5, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    Unbalanced(0.5, -0.3).apply(network, torch.Generator().manual_seed(0), batch=x)
    columns = network[3].weight.detach().view(2, 3, 4).square().sum((0, 1))
    torch.testing.assert_close(columns - network[0].weight.detach().square().sum(1), torch.full((4,), -0.3, dtype=torch.float64))
    assert network(x).abs().max() < 1e-12


def test_without_symmetry_every_unit_is_its_own_and_any_width_serves():
    w, a = _weights(Unbalanced(0.1, -1.0, symmetric=False), TwoLayer(4, 1, width=5))
    assert torch.linalg.matrix_rank(w) == 4
    torch.testing.assert_close(a.square().sum(1) - w.square().sum(1), torch.full((5,), -1.0, dtype=torch.float64))
    with pytest.raises(ParameterError, match="`symmetric` must be true or false, got 1"):
        Unbalanced(symmetric=1)
