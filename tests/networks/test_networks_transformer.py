"""The transformer computes what PyTorch's own layers compute at every position, by whatever way is cheapest."""

import copy
from math import sqrt

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from richlearn.conservation import check, find_laws
from richlearn.errors import ParameterError
from richlearn.kernels import empirical_ntk
from richlearn.networks import Transformer, find
from richlearn.networks._tables import _few_rows, cheaper
from richlearn.networks.transformer import VARIANTS
from richlearn.seeds import generator, global_stream

SMALL = {"width": 16, "heads": 2, "feed_forward": 24}
SHARES, KEYS = {"width": 16, "heads": 2}, {"width": 8, "heads": 8}  # a large batch spreads shares over rows, or looks keys up
SIDES = ("query", "key", "value")


def _network(seed: int = 0, positions: int = 4, classes: int = 7, **options) -> Transformer:
    with global_stream(generator(seed, "network")):
        network = Transformer(positions, classes, **{**SMALL, **options}).double()
        for parameter in network.parameters():  # zeros and ones would hide what they are multiplied with
            parameter.data += 0.3 * torch.randn_like(parameter)
    return network


def _tokens(count: int, positions: int = 4, vocabulary: int = 9) -> Tensor:
    return torch.randint(vocabulary, (count, positions), generator=torch.Generator().manual_seed(count))


class _Encoder(nn.Module):
    """`nn.TransformerEncoderLayer`s on all positions with an explicit causal mask."""

    def __init__(self, own: Transformer, *, bias: bool, activation: str) -> None:
        super().__init__()
        kind = {"dropout": 0.0, "activation": activation, "batch_first": True, "norm_first": False, "bias": bias, "dtype": torch.float64}
        units = len(own.get_parameter("blocks.0.expand.weight"))
        self.tokens, self.positions = nn.Embedding(own.vocabulary, own.width), nn.Embedding(own.in_features, own.width)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(own.width, own.heads, units, **kind) for _ in own.blocks)
        self.norm, self.head = copy.deepcopy(own.norm), nn.Linear(own.width, own.out_features, bias=bias)
        self.double().load_state_dict(_renamed(own.state_dict()))

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], dtype=torch.float64)
        hidden = self.tokens(tokens) + self.positions.weight
        for block in self.blocks:
            hidden = block(hidden, src_mask=mask, is_causal=True)
        return self.head(self.norm(hidden)[:, -1])


def _renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Values of the transformer's parameters under the names that PyTorch's layer gives them."""
    theirs = {"output": "self_attn.out_proj", "attention_norm": "norm1", "expand": "linear1", "contract": "linear2"}
    theirs["feed_forward_norm"] = "norm2"
    found = {}
    for name, value in state.items():
        *front, module, kind = name.split(".")
        if module == "query":
            packed = torch.cat([state[".".join([*front, side, kind])] for side in SIDES])
            found[".".join([*front, f"self_attn.in_proj_{kind}"])] = packed
        elif module not in SIDES:
            found[".".join([*front, theirs.get(module, module), kind])] = value
    return found


def _encoder(own: Transformer) -> _Encoder:
    return _Encoder(own, bias=own.variant == "post_norm", activation="gelu" if own.variant == "post_norm" else "relu")


def _gradients(network: nn.Module, tokens: Tensor) -> dict[str, Tensor]:
    slopes = torch.randn(len(tokens), 7, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    network.zero_grad()
    (network(tokens) * slopes).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in network.named_parameters() if parameter.grad is not None}


same = pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"variant": v, "layers": n, **shape}, c)
        for v in ("post_norm", "plain")
        for n in (1, 2)
        for shape in (SHARES, KEYS)
        for c in (3, 200)
    ],
)


@same
def test_it_gives_the_outputs_of_pytorchs_encoder_layers(options, count):
    network, tokens = _network(**options), _tokens(count)
    torch.testing.assert_close(network(tokens), _encoder(network)(tokens), rtol=1e-12, atol=1e-12)


@same
def test_it_gives_all_gradients_of_pytorchs_encoder_layers(options, count):
    network, tokens = _network(**options), _tokens(count)
    ours, theirs = _renamed(_gradients(network, tokens)), _gradients(_encoder(network), tokens)
    assert ours.keys() == theirs.keys()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-11)


def _by_hand(p: dict[str, Tensor], tokens: list[int], heads: int, layers: int) -> Tensor:
    """One sample through the variant without LayerNorm, position by position and head by head."""
    x = [p["tokens.weight"][token] + p["positions.weight"][place] for place, token in enumerate(tokens)]
    for layer in range(layers):
        w = {side: p[f"blocks.{layer}.{side}.weight"].chunk(heads) for side in SIDES}
        out = p[f"blocks.{layer}.output.weight"].chunk(heads, dim=1)
        for place in reversed(range(len(x))):  # earlier positions are still those of the layer before
            seen, change = x[: place + 1], torch.zeros_like(x[place])
            for h in range(heads):
                q = w["query"][h] @ x[place]
                scores = torch.stack([q @ (w["key"][h] @ other) for other in seen]) / sqrt(len(q))
                values = torch.stack([w["value"][h] @ other for other in seen])
                change = change + out[h] @ (scores.softmax(0) @ values)
            x[place] = x[place] + change
        unit = [(p[f"blocks.{layer}.expand.weight"] @ each + p[f"blocks.{layer}.expand.bias"]).clamp(min=0) for each in x]
        x = [e + p[f"blocks.{layer}.contract.weight"] @ u + p[f"blocks.{layer}.contract.bias"] for e, u in zip(x, unit, strict=True)]
    return p["head.weight"] @ x[-1]


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("count", [3, 60])
def test_without_layer_norm_it_is_attention_written_by_hand(layers, count):
    network, tokens = _network(variant="no_norm", layers=layers), _tokens(count)
    expected = [_by_hand(network.state_dict(), row, network.heads, layers) for row in tokens.tolist()]
    torch.testing.assert_close(network(tokens).detach(), torch.stack(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("shape", "spread"), [(SHARES, True), (KEYS, False)])
def test_both_ways_of_a_large_batch_are_tested(shape, spread):
    assert _few_rows(_network(**shape)._chain[0], vocabulary=9, positions=4) == spread
    assert cheaper(vocabulary=9, positions=4, samples=60, queries=1)
    assert not cheaper(vocabulary=9, positions=4, samples=3, queries=4)


@pytest.mark.parametrize("shape", [SHARES, KEYS])
def test_a_batch_of_one_and_the_same_token_is_no_special_case(shape):
    network, tokens = _network(**shape), torch.full((200, 4), 6)
    torch.testing.assert_close(network(tokens), network(tokens[:1]).expand(200, -1), rtol=1e-12, atol=1e-12)


def test_a_sentence_of_one_token_is_served():
    network, tokens = _network(positions=1), _tokens(100, positions=1)
    torch.testing.assert_close(network(tokens), torch.cat([network(row) for row in tokens.split(1)]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [SHARES, KEYS])
@pytest.mark.parametrize("layers", [1, 2])
def test_a_stack_gives_the_outputs_one_by_one(shape, layers):
    members, tokens = [_network(seed, layers=layers, **shape) for seed in range(3)], _tokens(200)
    stacked = vmap(lambda p: functional_call(members[0], p, (tokens,)))(stack_module_state(members)[0])  # type: ignore[arg-type]
    torch.testing.assert_close(stacked, torch.stack([member(tokens) for member in members]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [SHARES, KEYS])
def test_a_stack_gives_the_gradients_one_by_one(shape):
    members, tokens = [_network(seed, **shape) for seed in range(2)], _tokens(200)
    total = lambda p: functional_call(members[0], p, (tokens,)).logsumexp(-1).sum()  # noqa: E731
    stacked = vmap(torch.func.grad(total))(stack_module_state(members)[0])  # type: ignore[arg-type]
    one = torch.func.grad(total)(dict(members[1].named_parameters()))
    torch.testing.assert_close({name: value[1] for name, value in stacked.items()}, one, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", [SHARES, KEYS])
def test_gradients_of_gradients_are_those_of_pytorchs_layers(shape):
    network, tokens = _network(**shape), _tokens(200)

    def penalty_slope(module: nn.Module) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):  # the others know no second derivative
            first = torch.autograd.grad(module(tokens).logsumexp(-1).sum(), module.get_parameter("tokens.weight"), create_graph=True)[0]
        return torch.autograd.grad(first.square().sum(), module.get_parameter("head.weight"))[0]

    torch.testing.assert_close(penalty_slope(network), penalty_slope(_encoder(network)), rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [SHARES, KEYS])
def test_it_compiles_in_one_graph(shape):
    network, tokens = _network(**shape), _tokens(200)
    torch.testing.assert_close(torch.compile(network, fullgraph=True)(tokens), network(tokens), rtol=1e-11, atol=1e-11)


def test_float32_stays_within_rounding_of_float64():
    network, tokens = Transformer(4, 97), _tokens(512, vocabulary=99)
    exact = copy.deepcopy(network).double()(tokens)
    torch.testing.assert_close(network(tokens).double(), exact, rtol=0, atol=1e-5)


def test_a_large_batch_costs_little_beyond_the_last_position():
    network, count = Transformer(4, 97), 4656
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(_tokens(count, vocabulary=99))
    last_position = 2 * count * (2 * 128 * 512 + 128 * 128 + 128 * 97)
    assert counter.get_total_flops() < 1.2 * last_position


def test_a_hook_on_keys_sees_every_position_of_every_sample():
    network, shapes = _network(), []
    network.get_submodule("blocks.0.key").register_forward_hook(lambda _m, _a, out: shapes.append(out.shape))
    network(_tokens(200))
    assert shapes == [(200, 4, 16)]


def _traced_by_jacobians(network: nn.Module, tokens: Tensor) -> Tensor:
    jacobians = jacrev(lambda p: functional_call(network, p, (tokens,)))(dict(network.named_parameters()))
    flat = torch.cat([each.flatten(2) for each in jacobians.values()], dim=2).flatten(1)
    return flat @ flat.T


@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.parametrize("count", [5, 60])
def test_the_tangent_kernel_by_structure_is_that_of_the_jacobians(variant, count):
    network, tokens = _network(variant=variant), _tokens(count)
    kernel = empirical_ntk(network, tokens, outputs="trace")
    torch.testing.assert_close(kernel, _traced_by_jacobians(network, tokens), rtol=1e-10, atol=1e-10)


def test_the_embeddings_are_the_first_layer_and_the_head_is_the_readout():
    found = find(_network(), _tokens(1))
    assert found.first == ("tokens.weight", "positions.weight")
    assert found.readout == ("head.weight", "head.bias")


def test_the_feed_forward_units_of_relu_variants_are_a_homogeneous_pair():
    pairs = find(_network(variant="plain"), _tokens(1)).pairs
    assert [(pair.incoming, pair.outgoing) for pair in pairs] == [("blocks.0.expand.weight", "blocks.0.contract.weight")]


@pytest.mark.parametrize("variant", list(VARIANTS))
@pytest.mark.parametrize("layers", [1, 2])
def test_what_the_heads_conserve_is_found_and_holds(variant, layers):
    network = _network(variant=variant, layers=layers)
    laws = find_laws(network, _tokens(1), loss="cross_entropy")
    assert {"query_key", "value_output", "softmax_shift"} <= {law.kind for law in laws}
    assert check(network, laws, _tokens(60)) == []


@pytest.mark.parametrize("tokens", [torch.zeros(3, 4), torch.zeros(3, 5, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)])
def test_inputs_that_are_no_tokens_are_refused(tokens):
    with pytest.raises(ParameterError, match=r"`tokens` must be whole numbers \(n, 4\), got torch\.\w+ of shape"):
        _network()(tokens)


@pytest.mark.parametrize("place", [0, 3])
@pytest.mark.parametrize("count", [3, 200])
def test_a_token_beyond_the_vocabulary_never_gives_an_answer(place, count):
    tokens = _tokens(count)
    tokens[-1, place] = 9
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        _network()(tokens)
