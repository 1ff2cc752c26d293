"""Networks that use their parameters in every way the engine must serve, and slow Jacobians to check it with."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from richlearn import networks
from richlearn.networks import MLP, Linear, TwoLayer
from richlearn.seeds import generator, global_stream


def made(build: Callable[[], nn.Module], dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Module:
    with global_stream(generator(seed, "zoo")):
        network = build().to(dtype)
        for module in network.modules():  # statistics and affine parameters that are not 0 and 1
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
            if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.LayerNorm | nn.GroupNorm) and module.weight is not None:
                nn.init.normal_(module.weight, 1.0, 0.3)
                if module.bias is not None:
                    nn.init.normal_(module.bias)
        return network.eval()


def jacobian(network: nn.Module, x: Tensor, rates: dict | None = None) -> Tensor:
    """sqrt(η_p) ∂f_c(x_i)/∂θ_p, (n, c, p), by one backward pass per output of one sample."""
    parameters = {name: p for name, p in network.named_parameters() if p.requires_grad}
    samples = []
    for i in range(len(x)):
        rows = []
        for value in network(x[i : i + 1].clone()).flatten():
            slopes = torch.autograd.grad(value, list(parameters.values()), retain_graph=True, allow_unused=True)
            filled = [torch.zeros_like(p) if slope is None else slope for p, slope in zip(parameters.values(), slopes, strict=True)]
            weights = [(rates or {}).get(name, 1.0) ** 0.5 for name in parameters]
            rows.append(torch.cat([weight * slope.flatten() for weight, slope in zip(weights, filled, strict=True)]))
        samples.append(torch.stack(rows))
    return torch.stack(samples)


def slow(network: nn.Module, x: Tensor, x2: Tensor | None = None, *, outputs: str = "full", rates: dict | None = None) -> Tensor:
    first = jacobian(network, x, rates)
    second = first if x2 is None else jacobian(network, x2, rates)
    if outputs == "trace":
        return torch.einsum("icp,jcp->ij", first, second)  # i, j samples; c output; p parameter
    if outputs == "sum":
        return torch.einsum("icp,jdp->ij", first, second)
    return torch.einsum("icp,jdp->icjd", first, second).reshape(first.shape[0] * first.shape[1], -1)


class Calls(nn.Module):
    """A network from a function of its modules and the inputs."""

    def __init__(self, function: Callable, **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part if isinstance(part, nn.Module) else nn.Parameter(part))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


class LeNet(nn.Sequential):
    def __init__(self, size: int = 12, pool: type = nn.MaxPool2d) -> None:
        flat = 16 * ((size // 2 - 4) // 2) ** 2 if size > 12 else 16 * ((size // 2 - 2) // 2) ** 2
        kernel = 5 if size > 12 else 3
        super().__init__(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(inplace=True), pool(2), nn.Conv2d(6, 16, kernel), nn.ReLU(), pool(2), nn.Flatten(),
            nn.Linear(flat, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3),
        )  # fmt: skip


class Block(nn.Module):
    def __init__(self, channels: int, norm: Callable = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        y += x
        return F.relu(y, inplace=True)


def resnet(norm: Callable = nn.BatchNorm2d) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 5, padding=2), norm(4), nn.ReLU(inplace=True), Block(4, norm), Block(4, norm),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


class Transformer(nn.Module):
    def __init__(self, layers: int = 2, norm_first: bool = False, last: bool = True, positions: str = "parameter") -> None:
        super().__init__()
        self.tokens, self.last, self.kind = nn.Embedding(11, 8), last, positions
        if positions == "embedding":
            self.positions = nn.Embedding(4, 8)
        else:
            self.positions = nn.Parameter(torch.randn(4, 8))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, activation="gelu", batch_first=True, norm_first=norm_first)
            for _ in range(layers)
        )
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        table = self.positions(torch.arange(x.shape[1], device=x.device)) if self.kind == "embedding" else self.positions
        h = self.tokens(x) + table
        for layer in self.layers:
            h = layer(h)
        return self.head(self.norm(h[:, -1] if self.last else h.mean(1)))


class HandAttention(nn.Module):
    """Packed projections, position-first inside, per-head einsum."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(6, 18, bias=False), nn.Parameter(torch.randn(6, 6) / 3)
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = x.transpose(0, 1)  # position, sample, feature
        q, k, v = (part.unflatten(-1, (2, 3)) for part in self.qkv(h).chunk(3, dim=-1))
        shares = torch.einsum("qnhd,knhd->nhqk", q, k).softmax(-1)
        mixed = torch.einsum("nhqk,knhd->qnhd", shares, v).flatten(-2)
        return self.head(self.norm(h + mixed @ self.out)[0])


def _images(*shape: int) -> Callable[[], Tensor]:
    return lambda: torch.randn(5, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _tokens(length: int = 4, count: int = 11) -> Callable[[], Tensor]:
    return lambda: torch.randint(count, (5, length), generator=torch.Generator().manual_seed(1))


def _nested(network: Calls, x: Tensor) -> Tensor:
    merged = network.first(x.reshape(-1, 3)).relu()  # samples and positions in one axis
    return network.second(merged).view(len(x), -1, 2).sum(1)


def _position_major(network: Calls, x: Tensor) -> Tensor:
    merged = network.first(x.transpose(0, 1).reshape(-1, 3)).relu()
    return network.second(merged).view(-1, len(x), 2).sum(0)


def _energy(network: Calls, x: Tensor) -> Tensor:
    with torch.enable_grad():
        inner = x.detach().requires_grad_()
        energy = network.second(F.gelu(network.first(inner))).sum()
        (force,) = torch.autograd.grad(energy, inner, create_graph=True)
    return force


def _energy_func(network: Calls, x: Tensor) -> Tensor:
    return torch.func.vmap(torch.func.grad(lambda one: network.second(F.gelu(network.first(one))).sum()))(x)


def _laplacian(network: Calls, x: Tensor) -> Tensor:
    with torch.enable_grad():
        inner = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(network.second(F.silu(network.first(inner))).sum(), inner, create_graph=True)
        (curvature,) = torch.autograd.grad(slope.sum(), inner, create_graph=True)
    return curvature


def _hidden_energy(network: Calls, x: Tensor) -> Tensor:
    with torch.enable_grad():
        hidden = torch.tanh(network.first(x))
        (force,) = torch.autograd.grad(network.second(F.gelu(hidden)).sum(), hidden, create_graph=True)
    return force


def _slopes_by_a_parameter(network: Calls, x: Tensor) -> Tensor:
    with torch.enable_grad():
        values = network.second(torch.tanh(network.first(x)))
        slopes = [torch.autograd.grad(value.sum(), network.first.weight, create_graph=True)[0].flatten() for value in values]
    return torch.stack(slopes)


def _directional(network: Calls, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        return forward_ad.unpack_dual(network.second(F.gelu(network.first(dual)))).tangent


def _pooled(network: Calls, x: Tensor) -> Tensor:
    return network.out(network.pool(network.conv(x)).flatten(1))


def _seen_besides(network: Calls, x: Tensor) -> Tensor:
    hidden = network.conv(x).relu()
    return network.out((F.max_pool2d(hidden, 2) + F.avg_pool2d(hidden, 2)).flatten(1))


def _doubled_on_the_way(network: Calls, x: Tensor) -> Tensor:
    hidden = network.conv(x).relu()
    if hidden.requires_grad:
        hidden.register_hook(lambda gradient: 2 * gradient)
    return network.out(F.max_pool2d(hidden, 2).flatten(1))


def _closed_over(network: Calls, x: Tensor) -> Tensor:
    hidden = network.first(x)
    return torch.func.vmap(lambda row: (F.gelu(hidden) * row).sum(-1))(network.rows).T


def _recurrent(network: Calls, x: Tensor) -> Tensor:
    return network.head(network.rnn(x)[0][:, -1])


def _class_token(network: Calls, x: Tensor) -> Tensor:
    h = torch.cat([network.token.expand(len(x), -1, -1), network.embed(x)], dim=1) + network.table
    return network.head(network.norm(network.attention(h, h, h, need_weights=False)[0])[:, 0])


_SMALL = {"width": 8, "heads": 2, "feed_forward": 10}


# What is covered without a Jacobian, with probes of five samples.
COVERED: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "two-layer": (lambda: TwoLayer(6, 1, width=9), _images(6)),
    "two-layer, biases": (lambda: TwoLayer(6, 3, width=9, bias=True), _images(6)),
    "mlp": (lambda: MLP(6, 3, width=7, depth=3), _images(6)),
    "gelu mlp": (lambda: MLP(6, 3, width=7, depth=2, activation="gelu"), _images(6)),
    "smooth activations": (
        lambda: nn.Sequential(
            *(nn.Linear(5, 5), nn.SiLU(inplace=True), nn.Linear(5, 5), nn.SiLU(), nn.Linear(5, 5), nn.Mish(), nn.Linear(5, 5)),
            *(nn.Softplus(2.0), nn.Linear(5, 5), nn.ELU(0.7), nn.Linear(5, 5), nn.CELU(), nn.Linear(5, 5), nn.SELU(), nn.Linear(5, 5)),
            *(nn.GELU("tanh"), nn.Linear(5, 3)),
        ),
        _images(5),
    ),
    "deep linear": (lambda: Linear(6, 2, width=3, depth=3), _images(6)),
    "lenet": (LeNet, _images(1, 12, 12)),
    "lenet, average pooling": (lambda: LeNet(pool=nn.AvgPool2d), _images(1, 12, 12)),
    "pooled": (
        lambda: Calls(_pooled, conv=nn.Conv2d(1, 3, 2), pool=nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), out=nn.Linear(27, 9)),
        _images(1, 8, 8),
    ),
    "pooled, overlapping, in place": (
        lambda: Calls(
            _pooled,
            conv=nn.Conv2d(2, 3, (1, 2), stride=(1, 2), padding=1, dilation=(1, 2)),
            pool=nn.Sequential(nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)),
            out=nn.Linear(30, 3),
        ),
        _images(2, 7, 6),
    ),
    "pooled, then cut off in place": (
        lambda: Calls(
            _pooled, conv=nn.Conv2d(1, 3, 2, bias=False), pool=nn.Sequential(nn.MaxPool2d(2), nn.ReLU(inplace=True)), out=nn.Linear(27, 9)
        ),
        _images(1, 8, 8),
    ),
    "pooled, and seen besides": (lambda: Calls(_seen_besides, conv=nn.Conv2d(1, 3, 2), out=nn.Linear(27, 9)), _images(1, 8, 8)),
    "pooled, with a hook": (lambda: Calls(_doubled_on_the_way, conv=nn.Conv2d(1, 3, 2), out=nn.Linear(27, 9)), _images(1, 8, 8)),
    "pooled over channels": (
        lambda: Calls(lambda s, x: s.out(F.max_pool2d(s.conv(x), (2, 1)).flatten(1)), conv=nn.Conv1d(1, 4, 2), out=nn.Linear(14, 9)),
        _images(1, 8),
    ),
    "resnet, batch norm": (resnet, _images(2, 6, 6)),
    "resnet, group norm": (lambda: resnet(lambda c: nn.GroupNorm(2, c)), _images(2, 6, 6)),
    "resnet, instance norm": (lambda: resnet(lambda c: nn.InstanceNorm2d(c, affine=True)), _images(2, 6, 6)),
    "layer norm as the output": (lambda: nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5)), _images(6)),
    "batch norm as the output": (lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)), _images(6)),
    "convolution and linear layer added": (
        lambda: Calls(
            lambda s, x: s.out((s.conv(x) + s.linear(x[:, :3])).tanh().flatten(1)),
            conv=nn.Conv2d(30, 3, 1),
            linear=nn.Linear(3, 3),
            out=nn.Linear(9, 2),
        ),
        _images(30, 1, 3),
    ),
    "strided, dilated, grouped convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 6, 3, stride=2, groups=2),
            nn.Tanh(),
            nn.Conv2d(6, 6, 2, dilation=2, groups=3, padding="same"),
            nn.Tanh(),
            nn.Conv2d(6, 6, 3, padding=(0, 1), groups=6, padding_mode="reflect"),
            nn.Flatten(),
            nn.Linear(36, 2),
        ),
        _images(4, 9, 8),
    ),
    "convolution on 1 x 1": (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.Flatten()), _images(3, 1, 1)),
    "one-dimensional convolution": (
        lambda: nn.Sequential(
            nn.Conv1d(2, 4, 3, padding="same", dilation=2), nn.ReLU(), nn.Conv1d(4, 3, 3, stride=2), nn.Flatten(), nn.Linear(9, 2)
        ),
        _images(2, 8),
    ),
    "transformer": (Transformer, _tokens()),
    "transformer, pre-norm": (lambda: Transformer(norm_first=True, positions="embedding"), _tokens()),
    "transformer, mean read-out": (lambda: Transformer(1, last=False), _tokens()),
    **{
        f"the suite's transformer, {variant}": (lambda v=variant: networks.Transformer(4, 3, variant=v, layers=2, **_SMALL), _tokens(4, 5))
        for variant in ("post_norm", "plain", "no_norm")
    },
    "hand-written attention": (HandAttention, _images(4, 6)),
    "cross attention": (
        lambda: Calls(
            lambda s, x: s.head(s.attention(x[:, :2], x[:, 2:], x[:, 1:4])[0].mean(1)),
            attention=nn.MultiheadAttention(6, 3, batch_first=True),
            head=nn.Linear(6, 2),
        ),
        _images(5, 6),
    ),
    "attention with its own key and value sizes": (
        lambda: Calls(
            lambda s, x: s.attention(x[:, :, :6], x[:, :, :4], x[:, :, :5])[0][:, 0],
            attention=nn.MultiheadAttention(6, 2, kdim=4, vdim=5, batch_first=True),
        ),
        _images(3, 6),
    ),
    "causal attention": (
        lambda: Calls(
            lambda s, x: s.attention(x, x, x, attn_mask=torch.ones(4, 4).triu(1).bool(), need_weights=False)[0].mean(1),
            attention=nn.MultiheadAttention(6, 2, batch_first=True),
        ),
        _images(4, 6),
    ),
    "look-up as the output": (lambda: Calls(lambda s, x: s.table(x[:, 0]), table=nn.Embedding(3, 4)), _tokens(1, 3)),
    "no position": (
        lambda: Calls(lambda s, x: s.out(s.inner(x[:, :0]).relu().sum(1) + 1.0), inner=nn.Linear(3, 4), out=nn.Linear(4, 2)),
        _images(2, 3),
    ),
    "attention, position first": (
        lambda: Calls(
            lambda s, x: s.layer(x.transpose(0, 1))[-1],
            layer=nn.TransformerEncoderLayer(6, 2, 7, dropout=0.0, activation="relu"),
        ),
        _images(4, 6),
    ),
    "class token": (
        lambda: Calls(
            _class_token,
            token=torch.randn(1, 1, 6),
            table=torch.randn(1, 4, 6),
            embed=nn.Linear(5, 6),
            norm=nn.LayerNorm(6),
            attention=nn.MultiheadAttention(6, 2, batch_first=True),
            head=nn.Linear(6, 3),
        ),
        _images(3, 5),
    ),
    "one Linear twice": (
        lambda: Calls(lambda s, x: s.out(s.twice(s.twice(x).relu()).relu()), twice=nn.Linear(6, 6), out=nn.Linear(6, 2)),
        _images(6),
    ),
    "one convolution twice": (
        lambda: Calls(lambda s, x: s.conv(s.conv(x).relu()).mean((2, 3)), conv=nn.Conv2d(3, 3, 3, padding=1)),
        _images(3, 5, 5),
    ),
    "tied autoencoder": (lambda: Calls(lambda s, x: F.linear(F.linear(x, s.w).relu(), s.w.t()), w=torch.randn(4, 6)), _images(6)),
    "tied embedding and read-out": (
        lambda: Calls(
            lambda s, x: F.linear(s.hidden(s.table(x)).relu().mean(1), s.table.weight), table=nn.Embedding(11, 5), hidden=nn.Linear(5, 5)
        ),
        _tokens(),
    ),
    "matrix products": (
        lambda: Calls(
            lambda s, x: torch.matmul((x @ s.a + s.b).relu(), s.c) * s.d,
            a=torch.randn(6, 5),
            b=torch.randn(5),
            c=torch.randn(5, 3),
            d=torch.randn(3),
        ),
        _images(6),
    ),
    "halves of one matrix": (lambda: Calls(lambda s, x: F.linear(F.linear(x, s.w[:6]).relu(), s.w[6:]), w=torch.randn(9, 6)), _images(6)),
    "a gate for each position": (
        lambda: Calls(
            lambda s, x: (s.gate * x + s.shift).flatten(1) @ s.out,
            gate=torch.randn(3, 1),
            shift=torch.randn(1, 3, 4),
            out=torch.randn(12, 2),
        ),
        _images(3, 4),
    ),
    "merged axes, sample first": (lambda: Calls(_nested, first=nn.Linear(3, 4), second=nn.Linear(4, 2)), _images(4, 3)),
    "merged axes, position first": (lambda: Calls(_position_major, first=nn.Linear(3, 4), second=nn.Linear(4, 2)), _images(4, 3)),
    "convolution over frames": (
        lambda: Calls(
            lambda s, x: s.out(s.conv(x.flatten(0, 1)).relu().mean((2, 3))).view(len(x), -1, 2).mean(1),
            conv=nn.Conv2d(2, 3, 3),
            out=nn.Linear(3, 2),
        ),
        _images(3, 2, 5, 5),
    ),
    "distances": (
        lambda: Calls(
            lambda s, x: s.out(torch.cdist(s.first(x), torch.eye(3, dtype=x.dtype)).neg().exp()), first=nn.Linear(6, 3), out=nn.Linear(3, 3)
        ),
        _images(6),
    ),
    "rms norm": (lambda: nn.Sequential(nn.Linear(6, 5), nn.RMSNorm(5), nn.Linear(5, 2)), _images(6)),
    "embedding with padding": (
        lambda: Calls(lambda s, x: s.out(s.table(x).tanh().mean(1)), table=nn.Embedding(11, 4, padding_idx=3), out=nn.Linear(4, 2)),
        _tokens(6),
    ),
    "embedding alone": (lambda: nn.Sequential(nn.Embedding(11, 4), nn.Flatten()), _tokens(3)),
    "outputs of two axes": (lambda: Calls(lambda s, x: s.first(x), first=nn.Linear(6, 2)), _images(3, 6)),
    "one number a sample": (lambda: Calls(lambda s, x: s.first(x).relu().sum(-1), first=nn.Linear(6, 4)), _images(6)),
    "input overwritten": (lambda: Calls(lambda s, x: s.out(x.add_(s.shift)), shift=torch.randn(6), out=nn.Linear(6, 2)), _images(6)),
    "unused parameters": (lambda: Calls(lambda s, x: s.used(x), used=nn.Linear(6, 2), unused=nn.Linear(3, 3)), _images(6)),
    "half of it without gradients": (
        lambda: Calls(_without, first=nn.Linear(6, 4), second=nn.Linear(6, 4), out=nn.Linear(4, 2)),
        _images(6),
    ),
}


def _without(network: Calls, x: Tensor) -> Tensor:
    with torch.no_grad():
        fixed = network.first(x)
    return network.out((network.first(x) + network.second(x).detach() + fixed).relu())


# What is served by Jacobians of the parameters named.
FALLBACK: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], set[str]]] = {
    "lstm": (
        lambda: Calls(_recurrent, rnn=nn.LSTM(3, 4, batch_first=True), head=nn.Linear(4, 2)),
        _images(5, 3),
        {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0", "rnn.bias_hh_l0"},
    ),
    "bilinear": (
        lambda: Calls(lambda s, x: s.out(s.mix(x, x).relu()), mix=nn.Bilinear(3, 3, 4), out=nn.Linear(4, 2)),
        _images(3),
        {"mix.weight", "mix.bias"},
    ),
    "radial basis functions": (
        lambda: Calls(lambda s, x: s.out(torch.cdist(x, s.centres).neg().exp()), centres=torch.randn(8, 6), out=nn.Linear(8, 3)),
        _images(6),
        {"centres"},
    ),
    "prelu": (lambda: nn.Sequential(nn.Linear(6, 4), nn.PReLU(), nn.Linear(4, 2)), _images(6), {"1.weight"}),
    "weight of a softmax": (
        lambda: Calls(lambda s, x: s.out(F.linear(x, s.w.softmax(1))), w=torch.randn(4, 6), out=nn.Linear(4, 2)),
        _images(6),
        {"w"},
    ),
    "weight norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), nn.Tanh(), nn.Linear(4, 2)),
        _images(6),
        {"0.parametrizations.weight.original0", "0.parametrizations.weight.original1"},
    ),
    "transposed convolution": (
        lambda: nn.Sequential(nn.ConvTranspose2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2)),
        _images(2, 4, 4),
        {"0.weight", "0.bias"},
    ),
    "covered and not": (lambda: Calls(lambda s, x: F.linear(x, s.w) + F.linear(x, s.w.exp()), w=torch.randn(2, 6)), _images(6), {"w"}),
    "overlapping parts": (lambda: Calls(lambda s, x: F.linear(x, s.w[:3]) + F.linear(x, s.w[1:]), w=torch.randn(4, 6)), _images(6), {"w"}),
    "double backward": (
        lambda: Calls(_energy, first=nn.Linear(4, 5), second=nn.Linear(5, 1)),
        _images(4),
        {"first.weight", "first.bias", "second.weight", "second.bias"},
    ),
    "double backward, twice": (
        lambda: Calls(_laplacian, first=nn.Linear(4, 5), second=nn.Linear(5, 1)),
        _images(4),
        {"first.weight", "first.bias", "second.weight", "second.bias"},
    ),
    "double backward to a hidden layer": (
        lambda: Calls(_hidden_energy, first=nn.Linear(4, 5), second=nn.Linear(5, 1)),
        _images(4),
        {"first.weight", "first.bias", "second.weight", "second.bias"},
    ),
    "double backward to a parameter": (
        lambda: Calls(_slopes_by_a_parameter, first=nn.Linear(3, 4, bias=False), second=nn.Linear(4, 1)),
        _images(3),
        {"first.weight", "second.weight", "second.bias"},
    ),
    "forward mode": (
        lambda: Calls(_directional, first=nn.Linear(4, 5), second=nn.Linear(5, 2)),
        _images(4),
        {"first.weight", "first.bias", "second.weight", "second.bias"},
    ),
    "torch.func with what lies outside": (
        lambda: Calls(_closed_over, first=nn.Linear(4, 5), rows=torch.randn(3, 5)),
        _images(4),
        {"rows"},
    ),
    "torch.func inside": (
        lambda: Calls(_energy_func, first=nn.Linear(4, 5), second=nn.Linear(5, 1)),
        _images(4),
        {"first.weight", "first.bias", "second.weight", "second.bias"},
    ),
}
