"""How fast the empirical NTK is, against torch.func, nngeometry and neural-tangents.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/performance/ntk.py [a b c d e] [--outputs full trace]

One core (`taskset`, for JAX), one run, CPU time of this process (others on the machine count less), minima over repeats; seconds.
Peers that are not installed are left out (`pip install nngeometry`; JAX as `ntk_jax.py` says). Read ratios, not times.
"""

import argparse
import copy
import functools
import gc
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

from richlearn.kernels import TangentKernel, kernel_distance
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


# ---- the contestants: each a function that computes the kernel -------------------------------------------------------


def ours(network: nn.Module, x: Tensor, outputs: str) -> Callable[[], Tensor]:
    engine = TangentKernel(network, x, outputs=outputs)  # type: ignore[arg-type]
    return lambda: engine(network)


def ours_once(network: nn.Module, x: Tensor, outputs: str) -> Callable[[], Tensor]:
    """The survey of the network included."""
    return lambda: TangentKernel(network, x, outputs=outputs)(network)  # type: ignore[arg-type]


def whole_jacobians(network: nn.Module, x: Tensor, outputs: str) -> Callable[[], Tensor] | None:
    """torch.func: per-sample Jacobians of all samples at once, contracted parameter by parameter; None beyond 8 GB."""
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    if len(x) * network(x[:1]).shape[1] * sum(p.numel() for p in parameters.values()) * 4 > 8e9:
        return None
    jacobian = vmap(jacrev(lambda p, one: functional_call(network, p, (one[None],))[0]), (None, 0))

    def run() -> Tensor:
        found = jacobian(parameters, x)
        rows = (j.flatten(2).flatten(0, 1) if outputs == "full" else j.flatten(1) for j in found.values())
        return sum(each @ each.T for each in rows)  # type: ignore[return-value]

    return run


def jacobians_in_chunks(network: nn.Module, x: Tensor, outputs: str) -> Callable[[], Tensor]:
    """torch.func: the same with Jacobians of 1 GB alive at once on either side, every pair of chunks contracted."""
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    jacobian = vmap(jacrev(lambda p, one: functional_call(network, p, (one[None],))[0]), (None, 0))
    chunk = max(1, int(1e9 / 4 / network(x[:1]).shape[1] / sum(p.numel() for p in parameters.values())))

    def rows(part: Tensor) -> list[Tensor]:
        return [j.flatten(2).flatten(0, 1) if outputs == "full" else j.flatten(1) for j in jacobian(parameters, part).values()]

    def run() -> Tensor:
        parts, blocks = x.split(chunk), {}
        for i, part in enumerate(parts):
            left = rows(part)
            for j in range(i, len(parts)):
                right = left if j == i else rows(parts[j])
                blocks[i, j] = sum(a @ b.T for a, b in zip(left, right, strict=True))
                blocks[j, i] = blocks[i, j].T
        return torch.cat([torch.cat([blocks[i, j] for j in range(len(parts))], 1) for i in range(len(parts))])

    return run


def layer_jacobians(network: nn.Module, x: Tensor, outputs: str) -> Callable[[], Tensor] | None:
    """torch.func: one parameter's Jacobian at a time, of all samples; None beyond 8 GB."""
    parameters = {name: p.detach() for name, p in network.named_parameters()}
    if len(x) * network(x[:1]).shape[1] * max(p.numel() for p in parameters.values()) * 4 > 8e9:
        return None

    def run() -> Tensor:
        total: Tensor | float = 0.0
        for name, value in parameters.items():
            found = vmap(jacrev(lambda p, one, name=name: functional_call(network, {**parameters, name: p}, (one[None],))[0]), (None, 0))(
                value, x
            )
            rows = found.flatten(2).flatten(0, 1) if outputs == "full" else found.flatten(1)
            total = total + rows @ rows.T
        return total  # type: ignore[return-value]

    return run


def nngeometry(network: nn.Module, x: Tensor, outputs: str) -> Callable[[], Tensor] | None:
    """Its full kernel; the traced one is the sum of the diagonal blocks."""
    try:
        from nngeometry import GramMatrix
        from nngeometry.layercollection import LayerCollection
        from torch.utils.data import DataLoader, TensorDataset
    except ImportError:
        return None
    c = network(x[:1]).shape[1]

    def run() -> Tensor:
        loader = DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=len(x))
        collection = LayerCollection.from_model(network)
        found = GramMatrix(network, loader, function=lambda *batch: network(batch[0]), layer_collection=collection).to_torch()
        if outputs == "trace":  # output, sample, output, sample
            return found.diagonal(dim1=0, dim2=2).sum(-1)
        return found.permute(1, 0, 3, 2).reshape(len(x) * c, -1)

    return run


def neural_tangents(key: str, network: nn.Module, x: Tensor, outputs: str, seconds: float) -> tuple[float, Tensor] | None:
    """Time and kernel from a process of its own, see `ntk_jax.py`; None where JAX is not installed."""
    if importlib.util.find_spec("neural_tangents") is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, target = f"{folder}/in.npz", f"{folder}/out.npz"
        np.savez(source, x=x.numpy(), **{name: p.detach().numpy() for name, p in network.named_parameters()})
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "ntk_jax.py")
        subprocess.run([sys.executable, script, key, outputs, source, target, str(seconds)], check=True, capture_output=True)
        found = np.load(target)
        return float(found["seconds"]), torch.from_numpy(found["kernel"])


# ---- measuring -------------------------------------------------------------------------------------------------------


def timed(compute: Callable[[], Tensor], seconds: float) -> tuple[float, Tensor]:
    """Least CPU time of some calls: at least one, at most 300, for `seconds`; the collector rests meanwhile, as in timeit."""
    best, spent, count = float("inf"), 0.0, 0
    result = None
    gc.collect()
    gc.disable()
    while count < 1 or (spent < seconds and count < 300):
        result = None  # a kernel that is still held costs the next one fresh pages of memory
        start = time.process_time()
        result = compute()
        took = time.process_time() - start
        best, spent, count = min(best, took), spent + took, count + 1
    gc.enable()
    assert result is not None
    return best, result


def extra_memory(key: str, outputs: str) -> float:
    """Peak memory of one kernel beyond network, probe and the kernel itself, GB; a process of its own on Linux."""
    program = (
        f"import sys; sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r}); import ntk, re, torch\n"
        "def status(name): return int(re.search(name + r':\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        f"torch.set_num_threads(1); torch.manual_seed(0); w = ntk.WORKLOADS[{key!r}]; n = w.network().eval(); x = w.probe()\n"
        f"ntk.ours(n, x[:4], {outputs!r})()\n"
        "open('/proc/self/clear_refs', 'w').write('5')\n"
        "before = status('VmRSS')\n"
        f"k = ntk.ours(n, x, {outputs!r})()\n"
        "print(status('VmHWM') - before - k.numel() * 4 // 1024)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    return int(found[-1]) / 2**20


def speed_of_products() -> float:
    """GFLOP/s of a large float32 matrix product."""
    a = torch.randn(2048, 2048)
    return 2e-9 * 2048**3 / timed(lambda: a @ a, 1.0)[0]


def workload(key: str, outputs: str, options: argparse.Namespace, speed: float) -> None:
    work = WORKLOADS[key]
    torch.manual_seed(0)
    network, x = work.network().eval(), work.probe()
    engine = TangentKernel(network, x, outputs=outputs)  # type: ignore[arg-type]
    arithmetic = 2 * engine.operations / 1e9 / speed
    print(f"\n({key}) {work.title}, {outputs}; extra memory {extra_memory(key, outputs):.2f} GB")
    print(f"{'':42}{'s':>10}{'÷ richlearn':>14}{'error':>10}")
    mine, kernel = timed(ours(network, x, outputs), options.seconds)
    contestants: dict[str, Callable[[], Tensor] | None] = {
        "richlearn, survey included": ours_once(network, x, outputs),
        "nngeometry": None if options.no_peers else nngeometry(network, x, outputs),
    }
    print(
        f"{'richlearn':42}{mine:10.4f}{1:14.2f}\n{'its operations at the speed of products':42}{arithmetic:10.4f}{arithmetic / mine:14.2f}"
    )
    for name, compute in contestants.items():
        report(name, compute, mine, kernel, options)
    if not options.no_peers and (found := neural_tangents(key, network, x, outputs, options.seconds)):
        line("neural-tangents, compiled", *found, mine, kernel)
    few = work.reduced if work.reduced and outputs == "full" else len(x)
    part, note = x[:few], "" if few == len(x) else f" (n = {few})"
    mine = mine if few == len(x) else timed(ours(network, part, outputs), options.seconds)[0]
    c = kernel.shape[0] // len(x)
    kernel = kernel[: few * c, : few * c]
    for recipe in (whole_jacobians, jacobians_in_chunks, layer_jacobians):
        if not options.no_peers:
            report(f"torch.func, {recipe.__name__.replace('_', ' ')}{note}", recipe(network, part, outputs), mine, kernel, options)


def report(name: str, compute: Callable[[], Tensor] | None, mine: float, kernel: Tensor, options: argparse.Namespace) -> None:
    if compute is None:
        return
    try:
        took, found = timed(compute, options.seconds)
    except Exception as error:  # a peer that cannot serve the network
        print(f"{name:42}{'-':>10}  {type(error).__name__}: {str(error).splitlines()[0][:60] if str(error) else ''}", flush=True)
        return
    line(name, took, found, mine, kernel)


def line(name: str, took: float, found: Tensor, mine: float, kernel: Tensor) -> None:
    print(f"{name:42}{took:10.4f}{took / mine:14.2f}{float((found - kernel).norm() / kernel.norm()):10.1e}", flush=True)


def estimates(options: argparse.Namespace) -> None:
    """Random-sign estimates of the traced kernel, and the sum of the outputs, against the exact one: error of K and of S(0, moved)."""
    for key in ("b", "c", "d", "e"):
        torch.manual_seed(0)
        network, x = WORKLOADS[key].network().eval(), WORKLOADS[key].probe()
        moved = copy.deepcopy(network)
        with torch.no_grad():
            for p in moved.parameters():
                p.add_(0.3 * p.std(correction=0) * torch.randn_like(p))
        took, exact = timed(ours(network, x, "trace"), options.seconds)
        distance = kernel_distance(exact, TangentKernel(network, x, outputs="trace")(moved))
        print(f"\n({key}) {WORKLOADS[key].title}: exact {took:.3f} s, S = {distance:.4f}")
        print(f"{'':24}{'÷ exact time':>14}{'error of K':>12}{'error of S':>12}")
        kinds: dict[str, dict] = {f"{m} sign combinations": {"outputs": "trace", "samples": m} for m in (1, 2, 4, 8, 16, 32)}
        for name, given in (kinds | {"sum of the outputs": {"outputs": "sum"}}).items():
            engines = [TangentKernel(network, x, seed=seed, **given) for seed in range(8)]
            spent, _ = timed(functools.partial(engines[0], network), options.seconds)
            pairs = [(engine(network), engine(moved)) for engine in engines]
            kernel = statistics.fmean(float((first - exact).norm() / exact.norm()) for first, _ in pairs)
            turned = statistics.fmean(abs(kernel_distance(first, second) / distance - 1) for first, second in pairs)
            print(f"{name:24}{spent / took:14.2f}{kernel:12.1%}{turned:12.1%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workload", nargs="*", default=list(WORKLOADS), help=f"of {', '.join(WORKLOADS)}; default all")
    parser.add_argument("--outputs", nargs="*", default=["full", "trace"], choices=["full", "trace"])
    parser.add_argument("--seconds", type=float, default=3.0, help="time spent on each contestant, at least")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--estimates", action="store_true", help="instead: stochastic estimates against the exact kernel")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    speed = speed_of_products()
    print(f"torch {torch.__version__}, one thread, float32; matrix products {speed:.0f} GFLOP/s")
    for key in () if options.estimates else options.workload:
        for outputs in options.outputs:
            workload(key, outputs, options, speed)
    if options.estimates:
        estimates(options)


if __name__ == "__main__":
    main()
