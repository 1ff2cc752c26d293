"""The scales of the sample-complexity and the grokking experiments, on the networks of those experiments."""

import pytest
import torch
from torch import Tensor, nn

from richlearn.errors import NotApplicable, ParameterError
from richlearn.networks import MLP, Transformer
from richlearn.schemes import NTK, EmbeddingScale, MeanField, MuP, RelativeScale, Standard
from richlearn.tasks import ModularArithmetic, RandomHierarchy

BASES = {"standard": Standard(), "ntk": NTK(), "mean_field": MeanField(), "mup": MuP()}
ALPHAS = [0.1, 3.0, 100 / 3]
STRINGS = RandomHierarchy(train_size=20, test_size=50, dtype=torch.float64).test.inputs
EQUATIONS = ModularArithmetic(prime=7, dtype=torch.float64).test.inputs
TABLES = ("tokens.weight", "positions.weight")


def _hierarchy_network(scheme, seed=0, optimizer=None):
    """The multilayer perceptron of figure 6c, and its multipliers."""
    network = MLP(64, 8, width=64, bias=False).double()
    return network, scheme.apply(network, torch.Generator().manual_seed(seed), batch=STRINGS, optimizer=optimizer)


def _transformer(scheme, optimizer="adamw", **options):
    network = Transformer(4, 7, width=16, heads=2, feed_forward=32, **options).double()
    return network, scheme.apply(network, torch.Generator().manual_seed(0), batch=EQUATIONS, optimizer=optimizer)


class _Tied(nn.Module):
    """Tokens are read out with the table that they are looked up in."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.hidden, self.out = nn.Embedding(9, 8), nn.Linear(8, 8), nn.Linear(8, 9, bias=False)
        self.out.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(self.tokens(tokens))).mean(1))


# ---- relative scale --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("alpha", ALPHAS)
def test_no_alpha_changes_the_function_of_any_base(base, alpha):
    outputs = _hierarchy_network(BASES[base])[0](STRINGS).detach()
    found = _hierarchy_network(RelativeScale(alpha, base=base))[0](STRINGS).detach()
    assert float((found - outputs).abs().max() / outputs.abs().max()) < 1e-12


@pytest.mark.parametrize("base", BASES)
def test_alpha_moves_weight_from_the_first_layer_to_the_readout(base):
    scaled, plain = _hierarchy_network(RelativeScale(10.0, base=base))[0], _hierarchy_network(BASES[base])[0]
    factors = [float((p / q).detach().mean()) for p, q in zip(scaled.parameters(), plain.parameters(), strict=True)]
    assert factors == pytest.approx([0.1, 1.0, 1.0, 10.0], rel=1e-12)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_multipliers_are_those_of_the_base(base, optimizer):
    found = _hierarchy_network(RelativeScale(10.0, base=base), optimizer=optimizer)[1]
    assert found == _hierarchy_network(BASES[base], optimizer=optimizer)[1]


def test_without_a_base_it_is_the_standard_initialisation():
    assert RelativeScale(3.0) == RelativeScale(3.0, base="standard")


@pytest.mark.parametrize("alpha", [1.0, *ALPHAS])
def test_mean_field_weights_have_the_sizes_of_the_experiments(alpha):
    nets = [_hierarchy_network(RelativeScale(alpha, base="mean_field"), seed)[0] for seed in range(5)]
    spread = [torch.stack([net.get_parameter(f"layers.{i}.weight").detach() for net in nets]).std() for i in (0, 2, 4, 6)]
    expected = [1 / (8 * alpha), 1 / 8, 1 / 8, alpha / 64]  # fan-in and width are 64
    assert [float(each) for each in spread] == pytest.approx(expected, rel=0.03)  # over two standard errors of 2,560 entries


def test_mean_field_rates_are_those_of_the_experiments():
    multipliers = _hierarchy_network(RelativeScale(10.0, base="mean_field"), optimizer="sgd")[1]
    assert dict(multipliers.lr) == pytest.approx({f"layers.{i}.weight": 1 / 64 for i in (0, 2, 4)} | {"layers.6.weight": 1 / 64**2})
    assert set(multipliers.lr) == {name for name, _ in MLP(64, 8, bias=False).named_parameters()}


# ---- embedding scale -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["post_norm", "plain", "no_norm"])
@pytest.mark.parametrize("alpha", [0.3, 10.0])
def test_alpha_changes_the_function_of_a_transformer(variant, alpha):
    outputs = _transformer(EmbeddingScale(), variant=variant)[0](EQUATIONS).detach()
    difference = _transformer(EmbeddingScale(alpha), variant=variant)[0](EQUATIONS).detach() - outputs
    assert float(difference.norm() / outputs.norm()) > 0.1


def test_alpha_divides_both_tables_and_nothing_else():
    scaled, plain = _transformer(EmbeddingScale(3.0))[0], _transformer(Standard())[0]
    for name, value in scaled.named_parameters():
        assert torch.equal(value, plain.get_parameter(name) / (3.0 if name in TABLES else 1.0))


@pytest.mark.parametrize("variant", ["post_norm", "plain", "no_norm"])
@pytest.mark.parametrize("tau", [0.5, 2.0])  # powers of two: no rounding
def test_tau_multiplies_the_logits(variant, tau):
    outputs = _transformer(EmbeddingScale(3.0), variant=variant)[0](EQUATIONS)
    assert torch.equal(_transformer(EmbeddingScale(3.0, tau), variant=variant)[0](EQUATIONS), tau * outputs)


def test_any_tau_multiplies_the_logits_to_rounding():
    outputs = _transformer(EmbeddingScale())[0](EQUATIONS)
    torch.testing.assert_close(_transformer(EmbeddingScale(tau=0.75))[0](EQUATIONS), 0.75 * outputs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("optimizer", "powers"), [("sgd", (2, -2, 0)), ("adam", (1, -2, -1)), ("adamw", (1, -1, -1))])
def test_the_readout_trains_as_if_tau_followed_it(optimizer, powers):
    multipliers = _transformer(EmbeddingScale(3.0, 0.75), optimizer)[1]
    for factors, power in zip((multipliers.lr, multipliers.weight_decay, multipliers.eps), powers, strict=True):
        assert dict(factors) == (dict.fromkeys(("head.weight", "head.bias"), 0.75**power) if power else {})


def test_a_network_without_tables_has_its_first_weight_divided():
    scaled, plain = _hierarchy_network(EmbeddingScale(4.0))[0], _hierarchy_network(Standard())[0]
    factors = [float((p / q).detach().mean()) for p, q in zip(scaled.parameters(), plain.parameters(), strict=True)]
    assert factors == [0.25, 1.0, 1.0, 1.0]


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("mean_feild", r"unknown `base` 'mean_feild'; did you mean `mean_field`\?"),
        ("Standard", r"unknown `base` 'Standard'; did you mean `standard`\?"),
        ("xyz", "unknown `base` 'xyz'; valid: mean_field, mup, ntk, standard"),
    ],
)
def test_an_unknown_base_names_the_nearest(base, message):
    with pytest.raises(ParameterError, match=message):
        RelativeScale(1.0, base=base)


@pytest.mark.parametrize(
    ("scheme", "name"),
    [(lambda v: RelativeScale(v, base="mean_field"), "alpha"), (EmbeddingScale, "alpha"), (lambda v: EmbeddingScale(1.0, v), "tau")],
)
@pytest.mark.parametrize(("value", "wanted"), [(0.0, "positive"), (-1.0, "positive"), (float("inf"), "a finite number")])
def test_a_scale_is_a_positive_number(scheme, name, value, wanted):
    with pytest.raises(ParameterError, match=f"`{name}` must be {wanted}, got {value}"):
        scheme(value)


@pytest.mark.parametrize("scheme", [RelativeScale(2.0, base="mean_field"), EmbeddingScale(2.0), EmbeddingScale(tau=2.0)])
def test_tied_weights_are_refused(scheme):
    tokens = torch.arange(8).view(2, 4)
    with pytest.raises(NotApplicable, match="needs a first layer and a readout of their own, `_Tied` has one weight for both"):
        scheme.apply(_Tied(), torch.Generator(), batch=tokens)


def test_an_unknown_optimiser_names_the_nearest():
    with pytest.raises(ParameterError, match=r"unknown `optimizer` 'adamm'; did you mean `adam`\?"):
        _transformer(EmbeddingScale(2.0, 0.5), "adamm")
