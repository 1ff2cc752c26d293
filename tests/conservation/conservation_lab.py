"""Small networks, gradient descent, and the number of conservation laws by the Lie algebra of the gradient fields."""

import torch
from torch import nn
from torch.func import functional_call, grad, jvp

from richlearn.conservation import find_laws


class ChannelsLast(nn.Module):
    """(n, channel, …) → (n, …, channel)."""

    def forward(self, x):
        return x.movedim(1, -1)


class Beside(nn.Module):
    """Results of branches on the same input, side by side along `dim`."""

    def __init__(self, *branches, dim=-1):
        super().__init__()
        self.branches, self.dim = nn.ModuleList(branches), dim

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], self.dim)


class Tokens(nn.Module):
    """(n, …, token) → (n, …): the largest entry."""

    def forward(self, x):
        return x.argmax(-1)


def generic(build, seed=0):
    """A float64 network at generic parameters: no zero bias, no unit gain, no two equal; norms without ε to speak of."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build().double()
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
    for module in network.modules():
        if isinstance(getattr(module, "eps", None), float):
            module.eps = 1e-30
    return network


def inputs(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def parameters_of(network):
    return {name: parameter.detach() for name, parameter in network.named_parameters()}


def descend(network, x, lr, steps, rates, softmax=False):
    """Full-batch gradient descent on a smooth loss, in place."""
    target = inputs(*network(x).shape, seed=5)
    for _ in range(steps):
        outputs = network(x)
        loss = nn.functional.cross_entropy(outputs, target.argmax(-1)) if softmax else (outputs - target).square().mean()
        named = dict(network.named_parameters())
        for (name, parameter), slope in zip(named.items(), torch.autograd.grad(loss, list(named.values())), strict=True):
            parameter.data -= lr * rates.get(name, 1.0) * slope


def _fields(network, x, softmax):
    """A source of random combinations of the fields θ ↦ ∇_θ f_c(x; θ), θ flat; softmax: of f_c − mean f."""
    shapes = {name: parameter.shape for name, parameter in network.named_parameters()}
    generator = torch.Generator().manual_seed(3)

    def outputs(theta):
        parts = theta.split([shape.numel() for shape in shapes.values()])
        found = functional_call(network, {n: part.view(s) for (n, s), part in zip(shapes.items(), parts, strict=True)}, (x,))
        return found - found.mean(-1, keepdim=True) if softmax else found

    def draw():
        weights = torch.randn(network(x).shape, dtype=torch.float64, generator=generator)
        return grad(lambda theta: (weights * outputs(theta)).sum())

    return draw


def _bracket(left, right):
    """[X, Y] = DY·X − DX·Y."""

    def field(theta):
        return jvp(right, (theta,), (left(theta),))[1] - jvp(left, (theta,), (right(theta),))[1]

    return field


def _scaled(fields, theta):
    """The fields that do not vanish at θ, scaled to norm 1 there."""
    norms = [float(field(theta).norm()) for field in fields]
    return [lambda t, f=field, n=norm: f(t) / n for field, norm in zip(fields, norms, strict=True) if norm > 1e-9]


def lie_dimension(network, x, softmax=False):
    """Dimension at θ of the Lie algebra that the gradient fields generate (Marcotte et al. 2023, theorem 3.3).

    [g, b] for random generators g and random b of the level before, until a level adds no dimension. All fields are scaled to
    norm 1 at θ, so that a bracket which vanishes is seen to: what is left of it is rounding.
    """
    theta = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    draw, number = _fields(network, x, softmax), len(theta) + 4
    generators = _scaled([draw() for _ in range(number)], theta)
    level, values, ranks = generators, [], [0]
    while level:
        values += [field(theta) for field in level]
        ranks.append(int(torch.linalg.matrix_rank(torch.stack(values), rtol=1e-9)))
        if ranks[-1] == ranks[-2]:
            break
        pairs = torch.randint(len(level), (10, 2), generator=torch.Generator().manual_seed(len(ranks))).tolist()
        level = _scaled([_bracket(generators[i % len(generators)], level[j]) for i, j in pairs], theta)
    return ranks[-1]


def counts(network, x, loss=None):
    """(independent laws that were found, dim θ − dim of the Lie algebra)."""
    found = find_laws(network, x, loss=loss).independent(parameters_of(network))
    total = sum(parameter.numel() for parameter in network.parameters())
    return found, total - lie_dimension(network, x, softmax=loss is not None)
