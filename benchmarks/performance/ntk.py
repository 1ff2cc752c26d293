"""How fast the empirical NTK is, against torch.func, nngeometry and neural-tangents.

    OMP_NUM_THREADS=1 python benchmarks/performance/ntk.py [a b c d e] [--full] [--trace] [--no-peers]

One core, one run, CPU time of this process (others on the machine count less), minima over repeats; seconds. Peers that are not
installed are left out (`pip install nngeometry`; `pip install jax neural-tangents`). Read ratios, not times.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from richlearn.kernels import TangentKernel
from richlearn.networks import MLP, TwoLayer


class LeNet(nn.Sequential):
    """LeNet-5 on 28 × 28 images, ReLU and max pooling."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
        )  # fmt: skip


class Transformer(nn.Module):
    """One post-norm layer, 4 heads, d = 128, on tokens `x op y =` modulo 97, read out at the last position."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(99, 128), nn.Parameter(0.02 * torch.randn(4, 128))
        self.layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, activation="gelu", batch_first=True)
        self.norm, self.head = nn.LayerNorm(128), nn.Linear(128, 97)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.layer(self.tokens(x) + self.positions)[:, -1]))


class Block(nn.Module):
    """Two 3 × 3 convolutions beside a skip connection."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.norm2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.skip = nn.Identity() if stride == 1 else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))) + self.skip(x))


class ResNet(nn.Sequential):
    """A small ResNet on 32 × 32 images with a first kernel of 15 × 15."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 16, 15, padding=7, bias=False), nn.BatchNorm2d(16), nn.ReLU(), Block(16, 16, 1),
            Block(16, 32, 2), Block(32, 64, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
        )  # fmt: skip


@dataclass(frozen=True)
class Workload:
    """A network, its probe, and the smaller probe that torch.func's full kernel is timed on."""

    title: str
    network: Callable[[], nn.Module]
    probe: Callable[[], Tensor]
    reduced: int | None = None


def tokens() -> Tensor:
    left, right = torch.randint(97, (2, 64))
    return torch.stack([left, torch.full_like(left, 97), right, torch.full_like(left, 98)], dim=1)


WORKLOADS = {
    "a": Workload("ReLU net 100-50-1, n = 1000", lambda: TwoLayer(100, 1, width=50), lambda: torch.randn(1000, 100)),
    "b": Workload("MLP 784-512-512-512-10, n = 256", lambda: MLP(784, 10, width=512, depth=3), lambda: torch.randn(256, 784)),
    "c": Workload("LeNet-5, n = 256", LeNet, lambda: torch.randn(256, 1, 28, 28)),
    "d": Workload("transformer, 97 outputs, n = 64", Transformer, tokens, reduced=32),
    "e": Workload("ResNet, 15 × 15 first kernel, n = 64", ResNet, lambda: torch.randn(64, 3, 32, 32)),
}


# ---- the contestants -------------------------------------------------------------------------------------------------


def ours(network: nn.Module, x: Tensor, outputs: str) -> Callable[[], Tensor]:
    engine = TangentKernel(network, x, outputs=outputs)  # type: ignore[arg-type]
    return lambda: engine(network)


def from_jacobians(network: nn.Module, x: Tensor, outputs: str, chunk: int) -> Tensor:
    """Per-sample Jacobians of `chunk` samples at once, contracted parameter by parameter."""
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    jacobian = vmap(jacrev(lambda p, one: functional_call(network, p, (one[None],))[0]), (None, 0))
    kernel: Tensor | float = 0.0
    if outputs == "trace":
        parts = [jacobian(parameters, part) for part in x.split(chunk)]
        for name in parameters:
            rows = torch.cat([part[name].flatten(1) for part in parts])
            kernel = kernel + rows @ rows.T
        return kernel  # type: ignore[return-value]
    blocks = []
    for part in x.split(chunk):
        left = jacobian(parameters, part)
        row = []
        for other in x.split(chunk):
            right = jacobian(parameters, other)
            row.append(sum(left[n].flatten(2).flatten(0, 1) @ right[n].flatten(2).flatten(0, 1).T for n in parameters))
        blocks.append(torch.cat(row, 1))
    return torch.cat(blocks)


def from_products(network: nn.Module, x: Tensor, outputs: str) -> Tensor:
    """NTK-vector products (torch's tutorial): Jacobian times its transpose, a cotangent at a time, never a Jacobian."""
    parameters = {name: p.detach() for name, p in network.named_parameters()}

    def pair(first: Tensor, second: Tensor) -> Tensor:
        def of(sample: Tensor) -> Callable:
            return lambda p: functional_call(network, p, (sample[None],))[0]

        _, pullback = torch.func.vjp(of(first), parameters)
        eye = torch.eye(len(of(first)(parameters)))

        def column(cotangent: Tensor) -> Tensor:
            return torch.func.jvp(of(second), (parameters,), pullback(cotangent))[1]

        block = vmap(column)(eye)
        return block if outputs == "full" else block.diagonal().sum()

    kernel = vmap(vmap(pair, (None, 0)), (0, None))(x, x)
    return kernel.transpose(1, 2).flatten(2).flatten(0, 1) if outputs == "full" else kernel


def torch_func(network: nn.Module, x: Tensor, outputs: str) -> Callable[[], Tensor]:
    """Whole Jacobians if they fit in 6 GB, chunks otherwise."""
    size = sum(p.numel() for p in network.parameters()) * network(x[:1]).shape[1] * 4
    chunk = min(len(x), max(1, int(6e9 / size / (1 if outputs == "trace" else 2))))
    return lambda: from_jacobians(network, x, outputs, chunk)


def nngeometry(network: nn.Module, x: Tensor, outputs: str) -> Callable[[], Tensor] | None:
    """Its full kernel; the traced one is the sum of the diagonal blocks."""
    try:
        from nngeometry.generator import Jacobian
        from nngeometry.layercollection import LayerCollection
    except ImportError:
        return None
    from nngeometry.object.fspace import FMatDense
    from nngeometry.object.pspace import PMatDense  # noqa: F401
    from torch.utils.data import DataLoader, TensorDataset

    c = network(x[:1]).shape[1]

    def run() -> Tensor:
        loader = DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=len(x))
        generator = Jacobian(model=network, function=lambda *batch: network(batch[0]), layer_collection=LayerCollection.from_model(network))
        tensor = FMatDense(generator=generator, examples=loader).to_torch()  # output, sample, output, sample
        if outputs == "trace":
            return tensor.diagonal(dim1=0, dim2=2).sum(-1)
        return tensor.permute(1, 0, 3, 2).reshape(len(x) * c, -1)

    return run
