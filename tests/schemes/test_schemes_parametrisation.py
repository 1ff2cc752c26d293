"""NTK and mean-field parametrisations against explicit scales in the forward pass."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from richlearn.errors import ParameterError
from richlearn.networks import MLP
from richlearn.schemes import NTK, MeanField

OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9),
    "adam": lambda groups: torch.optim.Adam(groups, lr=0.05),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.05),
}
# an ε and a decay that matter: with small ones a wrong factor would pass
LR, DECAY, EPS = 0.05, 0.1, 1e-2
X = torch.randn(20, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Y = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


class _Explicit(nn.Module):
    """W = cV in the forward pass; V is what trains."""

    def __init__(self, network, scales):
        super().__init__()
        self.network, self.scales = [network], scales
        self.raw = nn.ParameterDict({n.replace(".", "/"): p.detach() / scales.get(n, 1.0) for n, p in network.named_parameters()})

    def forward(self, x):
        weights = {n.replace("/", "."): p * self.scales.get(n.replace("/", "."), 1.0) for n, p in self.raw.items()}
        return functional_call(self.network[0], weights, (x,))


def _groups(network, multipliers, adaptive):
    for name, parameter in network.named_parameters():
        group = {
            "params": [parameter],
            "lr": LR * multipliers.lr.get(name, 1.0),
            "weight_decay": DECAY * multipliers.weight_decay.get(name, 1.0),
        }
        yield group | ({"eps": EPS * multipliers.eps.get(name, 1.0)} if adaptive else {})


def _trajectory(network, optimizer, steps=60):
    outputs = []
    for _ in range(steps):
        optimizer.zero_grad()
        output = network(X)
        nn.functional.mse_loss(output, Y).backward()
        optimizer.step()
        outputs.append(output.detach())
    return torch.stack(outputs)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize(("scheme", "readout_scale"), [(NTK(), 12**-0.5), (MeanField(), 1 / 12)])
def test_multipliers_follow_the_explicit_scales(scheme, readout_scale, optimizer, bias):
    network = MLP(6, 2, width=12, depth=2, bias=bias).double()
    multipliers = scheme.apply(network, torch.Generator().manual_seed(0), optimizer=optimizer)
    scales = {"layers.0.weight": 6**-0.5, "layers.2.weight": 12**-0.5, "layers.4.weight": readout_scale}
    explicit = _Explicit(network, scales)
    plain = [{"params": [p], "lr": LR, "weight_decay": DECAY} | ({} if optimizer == "sgd" else {"eps": EPS}) for p in explicit.parameters()]
    expected = _trajectory(explicit, OPTIMIZERS[optimizer](plain))
    found = _trajectory(network, OPTIMIZERS[optimizer](_groups(network, multipliers, optimizer != "sgd")))
    assert (expected[-1] - expected[0]).abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("scheme", "power"), [(NTK(), 1), (MeanField(), 2)])
def test_raw_weights_are_standard_normal(scheme, power):
    network = MLP(40, 30, width=200, depth=2)
    scheme.apply(network, torch.Generator().manual_seed(0))
    assert float(network.layers[2].weight.detach().std()) == pytest.approx(200**-0.5, rel=0.05)
    assert float(network.layers[4].weight.detach().std()) == pytest.approx(200 ** (-power / 2), rel=0.05)
    assert not network.layers[0].bias.any()


def test_mean_field_has_the_rates_of_the_random_hierarchy_experiments():
    multipliers = MeanField().apply(MLP(64, 8, width=64, bias=False), torch.Generator())
    rates = [6.4 * factor for factor in multipliers.lr.values()]
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.0015625])


def test_an_unknown_optimizer_names_the_nearest():
    with pytest.raises(ParameterError, match=r"unknown `optimizer` 'sgdm'; did you mean `sgd`\?"):
        NTK().apply(MLP(4, 1), torch.Generator(), optimizer="sgdm")
