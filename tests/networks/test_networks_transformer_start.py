"""How the transformer starts: its parameters, their draws, what schemes do to it, and what it refuses."""

from contextlib import suppress

import pytest
import torch
from torch import Tensor, nn

from richlearn.catalog import SCHEMES
from richlearn.errors import NotApplicable, ParameterError
from richlearn.networks import Transformer, contract
from richlearn.networks.transformer import VARIANTS
from richlearn.schemes import Standard
from richlearn.seeds import generator, global_stream

SMALL = {"width": 16, "heads": 2, "feed_forward": 24}
SIDES = ("query", "key", "value")


def test_the_network_of_the_paper_has_its_number_of_parameters():
    tables, attention, feed_forward = (99 + 4) * 128, 4 * (128 * 128 + 128), 2 * 128 * 512 + 512 + 128
    norms, head = 3 * 2 * 128, 128 * 97 + 97
    assert sum(p.numel() for p in Transformer(4, 97).parameters()) == tables + attention + feed_forward + norms + head


@pytest.mark.parametrize(("variant", "names"), [("plain", []), ("no_norm", ["blocks.0.contract.bias", "blocks.0.expand.bias"])])
def test_variants_have_the_biases_they_shall_have(variant, names):
    network = Transformer(4, 7, variant=variant, **SMALL)
    assert sorted(name for name, _ in network.named_parameters() if name.endswith("bias")) == names


def test_attention_starts_like_pytorchs():
    network, theirs = Transformer(4, 7, width=256), nn.MultiheadAttention(256, 4)
    ours = torch.cat([network.get_parameter(f"blocks.0.{side}.weight") for side in SIDES])
    ours, theirs = ([float(w.detach().abs().max()), float(w.detach().std())] for w in (ours, theirs.in_proj_weight))
    assert ours == pytest.approx(theirs, rel=0.01)
    assert not network.get_parameter("blocks.0.query.bias").any()
    assert not network.get_parameter("blocks.0.output.bias").any()


def test_without_layer_norm_weights_start_with_variance_one_over_width():
    network = Transformer(64, 200, variant="no_norm", width=256, vocabulary=400)
    scale = {name: float(p.detach().std()) for name, p in network.named_parameters() if p.ndim == 2}
    assert scale.pop("head.weight") == pytest.approx(1 / 20, rel=0.03)
    assert list(scale.values()) == pytest.approx([1 / 16] * len(scale), rel=0.03)


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_a_reset_is_a_fresh_construction(variant):
    with global_stream(generator(3, "network")):
        fresh = Transformer(4, 7, variant=variant, **SMALL)
    reset = Transformer(4, 7, variant=variant, **SMALL)
    Standard().apply(reset, generator(3, "network"))
    assert all(torch.equal(p, q) for p, q in zip(fresh.parameters(), reset.parameters(), strict=True))


WANTED = {
    "unbalanced": {"tau": 1.0, "delta": 0.5},
    "lambda_balanced": {"lam": 1.0},
    "relative_scale": {"alpha": 3.0},
    "overall_scale": {"tau": 2.0},
}


@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.parametrize("name", list(SCHEMES.own))
def test_every_scheme_serves_it_or_says_why_not(name, variant):
    network, tokens = Transformer(4, 7, variant=variant, **SMALL), torch.randint(9, (100, 4))
    scheme = SCHEMES.load(name)
    try:
        made = scheme()
    except TypeError:
        made = scheme(**WANTED[name])
    with suppress(NotApplicable):
        made.apply(network, generator(0, "network"), batch=tokens, optimizer="adamw")
    assert bool(network(tokens).isfinite().all())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "`heads` must divide `width`, got 3 heads and width 16"),
        ({"variant": "plane"}, "unknown `variant` 'plane'; did you mean `plain`?"),
        ({"layers": 0}, "`layers` must be a whole number of at least 1, got 0"),
        ({"width": True}, "`width` must be a whole number of at least 1, got True"),
        ({"feed_forward": 1.5}, "`feed_forward` must be a whole number of at least 1, got 1.5"),
        ({"vocabulary": 0}, "`vocabulary` must be a whole number of at least 1, got 0"),
    ],
)
def test_bad_parameters_are_named(options, message):
    with pytest.raises(ParameterError, match=message):
        Transformer(4, 7, **{**SMALL, **options})


@pytest.mark.parametrize("tokens", [True, False])
def test_the_contract_gives_tokens_to_networks_that_take_them_alone(tokens):
    given = set()

    class _Network(nn.Module):
        takes_tokens = tokens

        def __init__(self, in_features: int, out_features: int) -> None:
            super().__init__()
            self.head = nn.Linear(in_features, out_features)

        def forward(self, x: Tensor) -> Tensor:
            given.add(x.dtype)
            return self.head(x.to(self.head.weight))

    assert contract.check(_Network) == []
    assert (torch.int64 in given) == tokens
