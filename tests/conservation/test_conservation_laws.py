"""Values, scales and rates of the laws, and the metric of their drift."""

import copy

import pytest
import torch
from conservation_lab import descend, generic, inputs, parameters_of
from torch import nn

from richlearn.conservation import Laws, find_laws
from richlearn.errors import NotApplicable, UsageError
from richlearn.metrics.conserved import ConservationLaws, ConservedQuantity, conserved_quantities
from richlearn.networks import MLP
from richlearn.theory import conserved_quantity, unit_scale

RATES = {"layers.0.weight": 0.5, "layers.0.bias": 3.0, "layers.2.weight": 2.0, "layers.2.bias": 0.7}


def _two_layer(activation="relu"):
    return generic(lambda: MLP(3, 2, width=4, depth=1, activation=activation))


def test_a_rescaling_law_is_delta_to_the_last_bit():
    network = _two_layer()
    w, b, a, _ = network.parameters()
    given = {"bias": b, "rate_in": 0.5, "rate_out": 2.0, "rate_bias": 3.0}
    (law,) = find_laws(network)
    assert torch.equal(law.value(parameters_of(network), RATES), conserved_quantity(w, a, **given))
    assert torch.equal(law.scale(parameters_of(network), RATES), unit_scale(w, a, **given))


def test_a_linear_law_is_the_matrix_whose_diagonal_is_delta():
    network = _two_layer("linear")
    w, b, a, _ = (p.detach() for p in network.parameters())
    (law,) = find_laws(network)
    expected = 0.5 * a.T @ a - 2.0 * w @ w.T - 2.0 * 0.5 / 3.0 * b[:, None] * b
    found = law.value(parameters_of(network), RATES)
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(found[0].diagonal(), conserved_quantities(network, RATES)[0])


def test_several_writers_and_readers_count_at_their_rates():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Linear(2, 2, bias=False) for _ in range(4))

        def forward(self, x):
            hidden = (self.a(x) + self.b(x.abs())).relu()
            return self.c(hidden) + self.d(hidden)

    network, rates = generic(Net), {"a.weight": 2.0, "b.weight": 3.0, "c.weight": 5.0, "d.weight": 7.0}
    (law,) = find_laws(network, inputs(4, 2))
    a, b, c, d = (p.detach().square() for p in network.parameters())
    expected = 10.0 * (c.sum(0) / 5 + d.sum(0) / 7 - a.sum(1) / 2 - b.sum(1) / 3)
    torch.testing.assert_close(law.value(parameters_of(network), rates), expected)


def test_values_of_attention_are_a_matrix_a_head():
    network = generic(lambda: nn.Sequential(_Attention(4, 2)))
    query_key, value_output, key_bias = find_laws(network, inputs(2, 3, 4))
    named = parameters_of(network)
    w, b, out = (named[f"0.attention.{name}"] for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight"))
    q, k, v = (torch.cat([w, b[:, None]], 1).unflatten(0, (3, 2, 2))).unbind()
    torch.testing.assert_close(query_key.value(named), k @ k.mT - q @ q.mT)
    torch.testing.assert_close(value_output.value(named)[1], out[:, 2:].T @ out[:, 2:] - v[1] @ v[1].T)
    assert torch.equal(key_bias.value(named)[:, 0], b[4:8])


class _Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x)[0]


@pytest.mark.parametrize("shared", [True, False])
def test_a_key_of_another_origin_leaves_its_bias_no_law(shared):
    network = generic(lambda: _Attention(4, 2))
    network.attention.add_zero_attn = not shared
    assert [law.kind for law in find_laws(network, inputs(2, 3, 4))][2:] == ["key_bias"] * shared


def test_laws_in_front_of_norms_sum_over_what_the_norm_joins():
    network = generic(lambda: nn.Sequential(nn.Linear(3, 4), nn.GroupNorm(2, 4), nn.Tanh(), nn.Linear(4, 2)))
    scale, shift = find_laws(network, inputs(5, 3))
    w, b = network[0].weight.detach(), network[0].bias.detach()
    rows = torch.cat([w, b[:, None]], 1).view(2, 2, 4)
    torch.testing.assert_close(scale.value(parameters_of(network)), rows.square().sum((1, 2)))
    torch.testing.assert_close(shift.value(parameters_of(network)), rows.sum(1))
    torch.testing.assert_close(shift.scale(parameters_of(network)), rows.flatten(1).norm(dim=1))


def test_a_transformation_changes_its_parameters_only():
    network = generic(lambda: MLP(3, 2, width=4, depth=2))
    law = find_laws(network)[0]
    before = parameters_of(network)
    after = law.transform(before, torch.Generator().manual_seed(0))
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"layers.0.weight", "layers.0.bias", "layers.2.weight"} == set(law.parameters)


def test_laws_are_a_sequence():
    laws = find_laws(generic(lambda: MLP(3, 2, width=4, depth=2)), loss="cross_entropy")
    assert isinstance(laws, Laws)
    assert len(laws) == 3
    assert laws[1:] == laws.laws[1:]
    assert [law.kind for law in laws.of("softmax_shift")] == ["softmax_shift"]
    assert laws.why == ""


def test_no_laws_have_no_values():
    laws = find_laws(nn.Linear(3, 2))
    assert laws.values({}).shape == (0,)
    assert laws.independent({}) == 0


def _measured(metric, network, x):
    metric.update(network)
    descend(network, x, 0.01, 30, {})
    metric.update(network)
    return metric


def test_the_metric_is_the_largest_drift_of_its_table():
    network = generic(lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.ReLU(), nn.Linear(4, 3), nn.Linear(3, 2)))
    metric = _measured(ConservationLaws(), network, inputs(9, 3))
    table = metric.table()
    assert list(table.columns) == ["name", "kind", "count", "initial", "drift"]
    assert table.kind.tolist() == ["scale_invariance", "shift_invariance", "rescaling", "linear"]
    assert table["count"].tolist() == [1, 4, 4, 6]
    assert metric.compute().dtype == torch.float64
    assert float(metric.compute()) == table.drift.max() > 1e-6
    assert table.drift[1] < 1e-14


def test_a_drift_is_read_against_the_initial_scale():
    network = _two_layer()
    (law,) = find_laws(network)
    start = copy.deepcopy(network)
    metric = _measured(ConservationLaws(), network, inputs(9, 3))
    moved = law.value(parameters_of(network)) - law.value(parameters_of(start))
    expected = float(moved.norm() / law.scale(parameters_of(start)).norm())
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-12)
    assert metric.table().initial[0] == pytest.approx(float(law.value(parameters_of(start)).norm()))


def test_both_metrics_agree_where_only_units_are_rescaled():
    network = _two_layer()
    both = ConservationLaws(), ConservedQuantity()
    for metric in both:
        metric.update(network)
    descend(network, inputs(9, 3), 0.05, 30, {})
    for metric in both:
        metric.update(network)
    assert float(both[0].compute()) == pytest.approx(float(both[1].compute()), rel=1e-12)


def test_delta_serves_functional_and_residual_networks():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            hidden = self.a(x).relu()
            return self.c(hidden + self.b(hidden).relu())

    metric = ConservedQuantity(sample_input=inputs(2, 3))
    metric.update(generic(Net))
    assert metric.delta.shape == (4,)
    assert not metric.delta.requires_grad


def test_a_network_without_laws_is_told_why():
    network = MLP(5, 1, width=4, depth=1, activation="gelu")
    reason = "no units of `MLP` can be changed unseen: those of `layers.0` reach `gelu`"
    with pytest.raises(NotApplicable, match=reason):
        ConservationLaws().update(network)
    with pytest.raises(NotApplicable, match=f"so no δ: {reason}"):
        ConservedQuantity().update(network)


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_reading_before_updating_is_refused():
    for ask in (lambda metric: metric.table(), lambda metric: metric.compute(), lambda metric: metric.laws):
        with pytest.raises(UsageError, match=r"`ConservationLaws` has seen no network yet: call `update\(network\)`"):
            ask(ConservationLaws())
