"""Which laws known networks have, which they must not have, and what is said where there are none."""

import pytest
import torch
from conservation_lab import generic, inputs, parameters_of
from torch import nn
from torchvision.models import resnet18

from richlearn.conservation import check, find_laws
from richlearn.errors import ParameterError


class _Net(nn.Module):
    """`forward` is given; layers by name."""

    def __init__(self, forward, **layers):
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


def _net(forward, **sizes):
    """Linear layers of these (in, out) sizes."""
    return generic(lambda: _Net(forward, **{name: nn.Linear(*size) for name, size in sizes.items()}))


def _kinds(network, x=None, **options):
    return [(law.name, law.kind, law.count) for law in find_laws(network, x, **options)]


def _lenet():
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 10)),
    )


def test_lenet_has_a_law_a_unit_through_pooling_and_flatten():
    network = generic(_lenet)
    laws = find_laws(network)
    assert [(law.name, law.count) for law in laws] == [("0 → 3", 6), ("3 → 7", 16), ("7 → 9", 12), ("9 → 11", 8)]
    assert check(network, laws, inputs(2, 1, 28, 28)) == []


def test_a_functional_forward_pass_is_seen():
    network = _net(lambda net, x: net.b(torch.relu(net.a(x)).view(len(x), -1)), a=(3, 4), b=(4, 2))
    assert _kinds(network, inputs(5, 3)) == [("a → b", "rescaling", 4)]


def test_resnet_in_evaluation_keeps_what_its_affine_maps_and_streams_allow():
    network = generic(lambda: resnet18(num_classes=3)).eval()
    x = inputs(1, 3, 32, 32)
    laws = find_laws(network, x)
    names = [law.name for law in laws]
    assert "layer1.0.bn1 → layer1.0.conv2" in names
    assert "layer4.0.bn2 + layer4.0.downsample.1 + layer4.1.bn2 → layer4.1.conv1 + fc" in names
    assert not any("batch_norm" in name or name.startswith("conv1") for name in names)
    assert len(laws) == 12
    assert check(network, laws, x) == []


def test_resnet_in_training_conserves_its_filters_as_well():
    laws = find_laws(resnet18(), torch.zeros(1, 3, 32, 32))
    assert [(law.name, law.count) for law in laws.of("scale_invariance")][:2] == [
        ("conv1 → batch_norm", 64),
        ("layer1.0.conv1 → batch_norm", 64),
    ]
    assert len(laws.of("scale_invariance")) == 20


def test_a_skip_around_one_layer_only_leaves_no_law():
    network = _net(lambda net, x: net.c(net.b(net.a(x).relu()) + x), a=(3, 4), b=(4, 3), c=(3, 2))
    assert _kinds(network, inputs(5, 3)) == [("a → b", "rescaling", 4)]
    network = _net(lambda net, x: net.b(net.a(x).relu() + x), a=(3, 3), b=(3, 2))
    assert find_laws(network, inputs(5, 3)).why == "no units of `_Net` can be changed unseen: those of `a` " + (
        "are added to something that does not scale with them"
    )


def test_a_linear_skip_of_the_stream_joins_all_that_write_it():
    network = _net(lambda net, x: net.c((h := net.a(x)) + net.b(h)), a=(3, 2), b=(2, 2), c=(2, 1))
    assert _kinds(network, inputs(5, 3)) == [("a + b → b + c", "linear", 3)]


@pytest.mark.parametrize(
    ("activation", "reason"),
    [
        (nn.GELU(), "reach `gelu`"),
        (nn.Hardtanh(), "reach `hardtanh`"),
        (nn.ReLU6(), "reach `hardtanh`"),
        (nn.Softmax(0), "reach `softmax`"),
        (nn.Threshold(0, 1), "reach `_threshold`"),
        (nn.Threshold(0.1, 0), "reach `_threshold`"),
    ],
)
def test_an_activation_that_is_not_homogeneous_leaves_no_law(activation, reason):
    laws = find_laws(nn.Sequential(nn.Linear(3, 4), activation, nn.Linear(4, 2)))
    assert len(laws) == 0
    assert laws.why == f"no units of `Sequential` can be changed unseen: those of `0` {reason}"


def test_units_that_are_also_an_output_have_no_law():
    network = _net(lambda net, x: ((h := net.a(x).relu()), net.b(h)), a=(3, 4), b=(4, 2))
    assert find_laws(network, inputs(5, 3)).why == "`_Net` has no hidden units between two weight layers"


def test_a_constant_that_is_added_shows_the_scale():
    network = _net(lambda net, x: net.b(net.a(x) + 1.0), a=(3, 4), b=(4, 2))
    assert not find_laws(network, inputs(5, 3))


def test_max_pooling_leaves_no_mixing_and_mean_pooling_does():
    def build(pool):
        return nn.Sequential(nn.Conv1d(1, 3, 2), pool(2), nn.Conv1d(3, 1, 2), nn.Flatten())

    assert _kinds(build(nn.MaxPool1d), torch.zeros(2, 1, 6)) == [("0 → 2", "rescaling", 3)]
    assert _kinds(build(nn.AvgPool1d), torch.zeros(2, 1, 6)) == [("0 → 2", "linear", 6)]


def test_groups_leave_no_mixing():
    network = generic(lambda: nn.Sequential(nn.Conv1d(1, 4, 2), nn.Conv1d(4, 4, 2, groups=2), nn.Flatten()))
    laws = find_laws(network, inputs(3, 1, 5))
    assert [(law.kind, law.count) for law in laws] == [("rescaling", 4)]
    assert check(network, laws, inputs(3, 1, 5)) == []


def test_a_view_that_cuts_samples_mixes_units():
    network = generic(lambda: _Net(lambda net, x: net.b(net.a(x).view(-1, 8)), a=nn.Conv1d(1, 4, 1), b=nn.Linear(8, 2)))
    assert len(find_laws(network, inputs(3, 1, 4))) == 0
    assert len(find_laws(network, inputs(3, 1, 2))) == 1


@pytest.mark.parametrize(
    ("forward", "layer", "shape"),
    [
        (lambda net, x: net.b(net.a(x).flatten(1)[:, 2:6]), nn.Conv1d(1, 2, 1), (5, 1, 4)),  # unit 0 at positions 2, 3, unit 1 at 0, 1
        (lambda net, x: net.b(net.a(x).flatten(1)[:, torch.tensor([1, 0, 2, 3])]), nn.Conv1d(1, 2, 1), (5, 1, 2)),
        (lambda net, x: net.b(net.a(x).flatten(1)[:, [0, 3, 2, 5]]), nn.Linear(2, 2), (5, 3, 2)),
    ],
)
def test_units_of_unlike_positions_are_not_mixed(forward, layer, shape):
    network, x = generic(lambda: _Net(forward, a=layer, b=nn.Linear(4, 2))), inputs(*shape)
    assert _kinds(network, x) == [("a → b", "rescaling", 2)]
    assert check(network, find_laws(network, x), x) == []


def test_the_order_of_flattened_units_counts():
    last = _net(lambda net, x: net.b(net.a(x).flatten(1)), a=(2, 2), b=(6, 1))
    first = _net(lambda net, x: net.b(net.a(x).mT.flatten(1)), a=(2, 2), b=(6, 1))
    first.load_state_dict(last.state_dict())
    laws, x = [find_laws(network, inputs(5, 3, 2)) for network in (last, first)], inputs(5, 3, 2)
    assert [[(law.kind, law.count) for law in found] for found in laws] == [[("linear", 3)]] * 2
    assert check(last, laws[0], x) == check(first, laws[1], x) == []
    assert check(last, laws[1], x)
    assert check(first, laws[0], x)


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: net.b(net.a(x).flatten(1)[:, 1:5]),  # units 1, 0, 1, 0
        lambda net, x: net.b(net.a(x).flatten(1).roll(1, -1)[:, :4]),
        lambda net, x: net.b(net.a(x).flatten(1)[:, [0, 1, 1, 2]]),
    ],
)
def test_units_in_another_order_have_no_law(forward):
    assert find_laws(_net(forward, a=(2, 2), b=(4, 2)), inputs(4, 3, 2)).why.startswith("no units of `_Net` can be changed unseen")


def test_a_batch_without_samples_shows_no_order_of_units():
    network = nn.Sequential(nn.Linear(2, 2), nn.Flatten(), nn.Linear(6, 1))
    assert find_laws(network, torch.zeros(0, 3, 2)).why.endswith("those of `0` reach `flatten`")
    assert find_laws(network, torch.zeros(1, 3, 2))


def test_linear_branches_side_by_side_have_a_matrix_each():
    network = _net(lambda net, x: net.c(torch.cat([net.a(x), net.b(x.abs())], -1)), a=(2, 1), b=(2, 2), c=(3, 2))
    assert _kinds(network, inputs(5, 2)) == [("a → c", "linear", 1), ("b → c", "linear", 3)]
    law, c = find_laws(network, inputs(5, 2))[1], network.c.weight[:, 1:]
    rows = torch.cat([network.b.weight, network.b.bias[:, None]], 1)
    torch.testing.assert_close(law.value(parameters_of(network))[0], (c.T @ c - rows @ rows.T).detach())
    assert check(network, find_laws(network, inputs(5, 2)), inputs(5, 2)) == []


def test_units_that_are_twice_beside_themselves_are_read_twice():
    network = _net(lambda net, x: net.b(torch.cat([(h := net.a(x).relu()), h], -1)), a=(3, 2), b=(4, 2))
    (law,) = laws = find_laws(network, inputs(5, 3))
    assert len(law.outgoing) == 2
    assert check(network, laws, inputs(5, 3)) == []


@pytest.mark.parametrize(
    ("forward", "names"),
    [
        (
            lambda net, x: (
                net.c(torch.cat([net.a(x).relu(), net.b(x).relu()], -1)) + net.c(torch.cat([net.b(x).abs(), net.a(x).abs()], -1))
            ),
            1,
        ),
        (lambda net, x: net.c(torch.cat([net.a(x).relu(), net.b(x).relu()], -1).mul(2) + torch.cat([net.b(x), net.a(x)], -1).relu()), 1),
        (lambda net, x: net.c(torch.cat([net.a(x).relu(), net.b(x).relu()], -1) * torch.cat([net.b(x), net.b(-x)], -1).relu()), 2),
        (lambda net, x: net.c(torch.cat([net.a(x).relu(), net.b(x).relu() ** 2], -1)), 2),
        (lambda net, x: net.c(torch.stack([net.a(x).relu(), net.b(x).relu()], -1).flatten(1)), 1),
        (lambda net, x: net.c(torch.cat([net.a(x).relu(), net.b(x).tanh()], -1)), 1),
        (lambda net, x: net.c(torch.cat([net.a(x).relu(), x[:, :2]], -1)), 1),
        (lambda net, x: net.c(torch.cat([torch.ones(len(x), 2, dtype=x.dtype), net.a(x).relu()], -1)), 1),
        (lambda net, x: net.c(torch.cat([net.a(x).relu(), x[:, :2]], 0).repeat(1, 2)), 0),
        (lambda net, x: net.c(torch.cat([net.a(x).relu(), net.b(x).relu()], 0).repeat(1, 2)), 1),
        (lambda net, x: net.c(torch.cat([net.a(x).relu(), x[:, :1].sum(-1, True), x[:, :1]], -1) + x[:, :1]), 0),
        (lambda net, x: net.c(torch.cat([net.a(x).relu(), net.b(x).relu()], -1).flip(-1)), 0),
        (lambda net, x: net.c(torch.cat([net.a(x).relu(), net.b(x).relu()], -1).softmax(-1)), 0),
    ],
)
def test_units_side_by_side_that_meet_others_have_what_is_left(forward, names):
    network, x = _net(forward, a=(3, 2), b=(3, 2), c=(4, 2)), inputs(5, 3)
    laws = find_laws(network, x)
    assert len(laws) == names
    assert check(network, laws, x) == []


@pytest.mark.parametrize(
    "cut", [lambda net, x: torch.maximum(x, net.floor), lambda net, x: x.clamp(net.floor), lambda net, x: x.maximum(-x)]
)
@pytest.mark.parametrize("floor", [torch.zeros(2), nn.Parameter(torch.zeros(2))])
def test_zeros_that_may_move_are_no_zeros(cut, floor):
    network = _Net(lambda net, x: net.b(cut(net, net.a(x))), a=nn.Linear(3, 2), b=nn.Linear(2, 2))
    network.register_parameter("floor", floor) if isinstance(floor, nn.Parameter) else network.register_buffer("floor", floor)
    assert find_laws(network, torch.ones(5, 3)).why.startswith("no units of `_Net` can be changed unseen: those of `a` reach `")


def test_classes_side_by_side_have_no_softmax_shift_of_their_own():
    network = _net(lambda net, x: torch.cat([net.a(x), net.b(x)], -1), a=(3, 2), b=(3, 2))
    assert len(find_laws(network, inputs(5, 3), loss="cross_entropy")) == 0


def test_a_layer_that_reads_other_parts_again_leaves_no_law():
    def forward(net, x):
        return net.e(torch.cat([net.a(x), net.b(x)], -1).relu()) + net.e(torch.cat([net.c(x), net.d(x)], -1).relu())

    network = _net(forward, a=(3, 1), b=(3, 2), c=(3, 2), d=(3, 1), e=(3, 2))
    assert find_laws(network, inputs(5, 3)).why.endswith("those of `a` share a weight with another layer")


@pytest.mark.parametrize(
    ("norm", "kinds"),
    [
        (nn.BatchNorm1d(4), ["scale_invariance", "shift_invariance"] * 2 + ["rescaling"]),
        (nn.LayerNorm(4), ["rescaling"]),
        (nn.GroupNorm(2, 4), ["rescaling"]),
    ],
)
def test_a_norm_of_units_side_by_side_keeps_what_it_takes_of_each(norm, kinds):
    network = generic(
        lambda: _Net(
            lambda net, x: net.c(net.norm(torch.cat([net.a(x), net.b(x)], -1)).relu()),
            **{"a": nn.Linear(3, 1), "b": nn.Linear(3, 3), "norm": norm, "c": nn.Linear(4, 2)},
        )
    )
    laws = find_laws(network, inputs(6, 3))
    assert [law.kind for law in laws] == kinds
    assert check(network, laws, inputs(6, 3)) == []


def test_a_tied_weight_on_both_sides_leaves_no_law():
    network = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), nn.Linear(4, 4, bias=False))
    network[2].weight = network[0].weight
    assert find_laws(network).why.endswith("those of `0` share a weight with another layer")


def test_tied_embeddings_have_no_softmax_shift():
    network = _Net(lambda net, x: net.out(net.hidden(net.table(x))), table=nn.Embedding(5, 3), hidden=nn.Linear(3, 3), out=nn.Linear(3, 5))
    tokens = torch.arange(4).view(2, 2)
    assert [law.name for law in find_laws(network, tokens, loss="cross_entropy").of("softmax_shift")] == ["out → softmax"]
    network.out.weight = network.table.weight
    assert len(find_laws(network, tokens, loss="cross_entropy")) == 0


def test_a_frozen_weight_has_no_law():
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    network[0].weight.requires_grad_(False)
    assert find_laws(network).why == "no units of `Sequential` can be changed unseen: those of `0` share a frozen weight"
    assert len(find_laws(network.requires_grad_(False))) == 1


@pytest.mark.parametrize(("training", "kind"), [(True, "rescaling"), (False, "linear")])
def test_dropout_leaves_no_mixing_in_training(training, kind):
    network = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)).train(training)
    assert [law.kind for law in find_laws(network)] == [kind]


def test_squared_relu_counts_its_degree():
    network = _net(lambda net, x: net.b(net.a(x).relu() ** 2), a=(3, 4), b=(4, 2))
    (law,) = find_laws(network, inputs(5, 3))
    parameters = parameters_of(network)
    expected = 2 * network.b.weight.square().sum(0) - network.a.weight.square().sum(1) - network.a.bias.square()
    torch.testing.assert_close(law.value(parameters), expected.detach())
    assert check(network, [law], inputs(5, 3)) == []


def test_gated_units_have_a_law_for_each_factor():
    network = _net(lambda net, x: net.c(net.a(x).relu() * net.b(x)), a=(3, 4), b=(3, 4), c=(4, 2))
    laws = find_laws(network, inputs(5, 3))
    assert [law.name for law in laws] == ["a → c", "b → c"]
    assert check(network, laws, inputs(5, 3)) == []


def _undecided(net, x):
    return net.b(net.a(x).relu()) if x.sum() > 0 else net.b(net.a(x))


def test_a_decision_on_values_ends_the_search():
    network = _net(_undecided, a=(3, 4), b=(4, 2))
    assert find_laws(network, inputs(5, 3)).why == (
        "`_Net` declares no `homogeneous_pairs` or `attention_blocks`, and a decision in it depends on values (`__bool__`)"
    )


def test_a_declaration_serves_where_no_tracing_does():
    network = _net(_undecided, a=(3, 4), b=(4, 2))
    network.homogeneous_pairs = [("a", "b")]
    laws = find_laws(network, inputs(5, 3))
    assert [(law.name, law.kind, law.count) for law in laws] == [("a → b", "rescaling", 4)]
    assert check(network, laws, inputs(5, 3)) == []


class _Reversed(torch.autograd.Function):
    """Gradient reversal: the function is the identity, its gradient is not."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, slope):
        return -slope


class _Silent(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, slope):
        return -slope


def _unseen(x):
    with torch._C.DisableTorchFunction():
        return x.tanh()


@torch.no_grad()
def _without(layer, x):
    return layer(x)


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda net, x: net.b(_Reversed.apply(net.a(x))), "gradients are not those of what it computes (`clone` without gradient"),
        (lambda net, x: net.b(_without(net.a, x)), "gradients are not those of what it computes (`linear` without gradient"),
        (lambda net, x: net.b(_Silent.apply(net.a(x))), "gradients are not those of what it computes (`view_as` without gradient"),
        (lambda net, x: net.b(_unseen(net.a(x))), "a tensor in it comes from an operation that cannot be seen"),
    ],
)
def test_gradients_of_something_else_end_the_search(forward, reason):
    assert reason in find_laws(_net(forward, a=(3, 4), b=(4, 2)), inputs(5, 3)).why


def test_an_operator_of_another_origin_is_unknown_whatever_its_name():
    network = _net(lambda net, x: net.b(torch.ops.aten.relu(net.a(x))), a=(3, 4), b=(4, 2))
    assert "those of `a` reach `torch._ops.aten.relu`" in find_laws(network, inputs(5, 3)).why


def test_a_detached_branch_leaves_no_law():
    network = _net(lambda net, x: net.b(net.a(x).detach()), a=(3, 4), b=(4, 2))
    assert "those of `a` reach `detach`" in find_laws(network, inputs(5, 3)).why


def test_without_an_input_it_says_what_it_needs():
    assert "give `find_laws` a `sample_input`, no input of `Bilinear` could be guessed" in find_laws(nn.Bilinear(2, 2, 2)).why


def test_an_input_that_does_not_fit_is_told():
    why = find_laws(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.zeros(2, 5)).why
    assert "and calling it raised RuntimeError: mat1 and mat2 shapes cannot be multiplied" in why


def _by_hand(net, x):
    q, k, v = (m(x).unflatten(-1, (2, 2)).transpose(1, 2) for m in (net.q, net.k, net.v))
    return net.o(((q @ k.mT / 2**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2))


def _attending():
    return _net(_by_hand, q=(3, 4), k=(3, 4), v=(3, 4), o=(4, 2))


def test_attention_by_hand_is_declared():
    network = _attending()
    assert not find_laws(network, inputs(2, 5, 3))
    network.attention_blocks = [("q", "k", "v", "o", 2)]
    laws = find_laws(network, inputs(2, 5, 3))
    assert [(law.name, law.kind, law.count) for law in laws] == [
        ("q → k", "query_key", 6),
        ("v → o", "value_output", 6),
        ("k → softmax", "key_bias", 4),
    ]
    assert check(network, laws, inputs(2, 5, 3)) == []


def test_a_packed_projection_is_declared_by_one_name():
    def forward(net, x):
        q, k, v = (part.unflatten(-1, (2, 2)).transpose(1, 2) for part in net.qkv(x).chunk(3, -1))
        return net.o(((q @ k.mT / 2**0.5).softmax(-1) @ v).transpose(1, 2).flatten(2))

    network = _net(forward, qkv=(3, 12), o=(4, 2))
    network.attention_blocks = [("qkv", "qkv", "qkv", "o", 2)]
    laws = find_laws(network, inputs(2, 5, 3))
    assert [law.name for law in laws] == ["qkv: query → key", "qkv → o", "qkv → softmax"]
    assert check(network, laws, inputs(2, 5, 3)) == []


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (("q", "k", "v", "o"), r"`attention_blocks` holds \(query, key, value, output, heads\), got"),
        (("q", "k", "v", "w", 2), "`attention_blocks` names `w`, which is no weight; valid:"),
        (("o", "k", "v", "o", 2), "`attention_blocks`: `o.weight` has 2 rows, the heads of `o` read 4"),
        (("q", "k", "v", "o", 3), "`attention_blocks`: 4 columns of `o` are no multiple of 3 heads"),
    ],
)
def test_a_wrong_declaration_is_told(block, message):
    network = _attending()
    network.attention_blocks = [block]
    with pytest.raises(ParameterError, match=message):
        find_laws(network, inputs(2, 5, 3))


def test_finding_leaves_the_network_as_it_was():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1))
    before, stream = {name: value.clone() for name, value in network.state_dict().items()}, torch.get_rng_state()
    find_laws(network, torch.randn(8, 3, generator=torch.Generator()))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert torch.equal(stream, torch.get_rng_state())
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
