"""On random networks, what the finder finds is constant under gradient flow, and its symmetry leaves the function as it is."""

import copy

import pytest
from conservation_lab import Beside, ChannelsLast, Tokens, descend, generic, inputs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from richlearn.conservation import check, find_laws
from richlearn.metrics.conserved import ConservationLaws

ACTIVATIONS = st.sampled_from([nn.ReLU, nn.LeakyReLU, nn.Identity, nn.GELU])
WIDTHS = st.integers(1, 4)
QUIET = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


class _Skip(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


def _norms(draw):
    return draw(st.sampled_from([nn.Identity, nn.LayerNorm, nn.RMSNorm, nn.BatchNorm1d, nn.GroupNorm]))


@st.composite
def fully_connected(draw):
    """Linear layers, norms, activations, residual blocks, a readout."""
    sizes, bias, parts = draw(st.lists(WIDTHS, min_size=1, max_size=3)), draw(st.booleans()), []
    width = 3
    for size in sizes:
        norm, activation, residual = _norms(draw), draw(ACTIVATIONS), draw(st.booleans())
        parts.append((width, size, norm, activation, residual))
        width = size

    def build():
        layers = []
        for into, out, norm, activation, residual in parts:
            layers += [nn.Linear(into, out, bias=bias), _made(norm, out), activation()]
            if residual:
                layers.append(_Skip(nn.Sequential(nn.Linear(out, 2, bias=bias), activation(), nn.Linear(2, out))))
        return nn.Sequential(*layers, nn.Linear(width, 2, bias=bias))

    return build, (7, 3)


def _made(norm, width):
    """A normalisation of one unit alone divides 0 by ε: none then."""
    return nn.Identity() if norm is nn.Identity or width == 1 else norm(1, width) if norm is nn.GroupNorm else norm(width)


@st.composite
def convolutional(draw):
    """Convolutions, perhaps in groups, norms, pooling, flatten, a readout."""
    groups, activation, bias = draw(st.sampled_from([1, 2])), draw(ACTIVATIONS), draw(st.booleans())
    pool = draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]))
    norm = draw(st.sampled_from([nn.Identity, nn.BatchNorm2d, lambda c: nn.GroupNorm(2, c), nn.InstanceNorm2d]))
    padding = draw(st.sampled_from(["zeros", "circular"]))

    def build():
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, padding_mode=padding, bias=bias),
            norm() if norm is nn.Identity else norm(4),
            activation(),
            pool(2),
            nn.Conv2d(4, 2, 2, groups=groups, bias=bias),
            activation(),
            nn.Flatten(),
            nn.Linear(8, 2),
        )

    return build, (5, 1, 6, 6)


class _Encoder(nn.Module):
    def __init__(self, first, activation, bias):
        super().__init__()
        options = {"batch_first": True, "dropout": 0.0, "norm_first": first, "bias": bias, "activation": activation}
        self.layer = nn.TransformerEncoderLayer(4, 2, 3, **options)
        self.embed, self.out = nn.Linear(2, 4, bias=bias), nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.layer(self.embed(x)).mean(1))


@st.composite
def encoders(draw):
    """A transformer layer, norms first or last, between an embedding and a readout."""
    options = draw(st.booleans()), draw(st.sampled_from(["relu", "gelu"])), draw(st.booleans())
    return (lambda: _Encoder(*options)), (4, 3, 2)


@st.composite
def units_last(draw):
    """Units on the last axis, flattened with the positions before them, perhaps normalised, then a readout."""
    activation, norm = draw(ACTIVATIONS), draw(st.sampled_from([nn.Identity, nn.LayerNorm, nn.RMSNorm, nn.BatchNorm1d]))
    first, shape = draw(
        st.sampled_from(
            [
                (lambda: [nn.Linear(2, 4)], (7, 3, 2)),
                (lambda: [Tokens(), nn.Embedding(3, 4)], (7, 3, 3)),
                (lambda: [nn.Conv1d(2, 4, 2), ChannelsLast()], (7, 2, 4)),
            ]
        )
    )

    def build():
        return nn.Sequential(*first(), activation(), nn.Flatten(), _made(norm, 12), activation(), nn.Linear(12, 2))

    return build, shape


@st.composite
def side_by_side(draw):
    """Branches beside each other, of layers or convolutions, perhaps normalised, then a readout."""
    widths, activation = draw(st.lists(st.integers(1, 3), min_size=2, max_size=3)), draw(ACTIVATIONS)
    norm, deep, bias = draw(st.sampled_from([nn.Identity, nn.LayerNorm, nn.BatchNorm1d])), draw(st.booleans()), draw(st.booleans())
    flat = draw(st.booleans())

    def build():
        total = sum(widths)
        if flat:  # (n, 2, 3): the same layers at two positions
            row = [Beside(*(nn.Linear(3, width, bias=bias) for width in widths)), activation(), nn.Flatten()]
        else:
            row = [nn.Flatten(), Beside(*(nn.Linear(6, width, bias=bias) for width in widths)), activation()]
        total *= 2 if flat else 1
        inside = nn.Sequential(nn.Linear(total, 2, bias=bias), activation())
        row += [_made(norm, total), Beside(nn.Identity(), inside) if deep else nn.Identity()]
        return nn.Sequential(*row, nn.Linear(total + 2 * deep, 2))

    return build, (7, 2, 3)


def _rates(network):
    return {name: (0.5, 1.0, 2.0)[i % 3] for i, (name, _) in enumerate(network.named_parameters())}


@QUIET
@given(st.one_of(fully_connected(), convolutional(), encoders(), units_last(), side_by_side()), st.integers(0, 3), st.booleans())
def test_no_law_moves_along_the_flow_and_its_symmetry_is_unseen(case, seed, training):
    build, x = case[0], inputs(*case[1])
    network = generic(build, seed).train(training)
    laws = find_laws(network, x, loss="cross_entropy")
    assert laws
    assert check(network, laws, x, rates=_rates(network), seed=seed) == []


def _drifts(network, x, lr, steps):
    network, rates = copy.deepcopy(network), _rates(network)
    metric = ConservationLaws(rates=rates, sample_input=x, loss="cross_entropy")
    metric.update(network)
    descend(network, x, lr, steps, rates, softmax=True)
    metric.update(network)
    return metric.table().drift


@settings(QUIET, max_examples=12)
@given(st.one_of(fully_connected(), convolutional(), encoders(), units_last(), side_by_side()))
def test_drift_over_a_fixed_time_falls_linearly_with_the_rate(case):
    build, x = case[0], inputs(*case[1])
    network = generic(build)
    coarse, fine = _drifts(network, x, 0.002, 20), _drifts(network, x, 0.001, 40)
    assert coarse.max() < 0.02
    for before, after in zip(coarse, fine, strict=True):
        assert before < 1e-10 or before / after == pytest.approx(2.0, rel=0.25)


def test_a_wrong_law_is_found_out():
    network = generic(lambda: nn.Sequential(nn.Linear(3, 4), nn.GELU(), nn.Linear(4, 2)))
    twin = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    findings = check(network, find_laws(twin), inputs(5, 3))
    assert len(findings) == 2
    assert findings[0].startswith("`0 → 2` (rescaling): its transformation changes the outputs by")
    assert findings[1].startswith("`0 → 2` (rescaling): gradient flow changes it at a relative speed of")


def test_a_wrong_rate_is_found_out():
    network = generic(lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    (law,) = find_laws(network)
    assert check(network, [law], inputs(5, 3), rates={"0.bias": 3.0}) == []
    flowing = _Misinformed(law.name, law.kind, law.blocks, law.incoming, law.outgoing)
    assert "gradient flow" in check(network, [flowing], inputs(5, 3), rates={"0.bias": 3.0})[0]


class _Misinformed(type(find_laws(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)))[0])):
    """A law that forgets the rates."""

    def value(self, parameters, rates=None):
        return super().value(parameters)
