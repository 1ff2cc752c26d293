"""Every named component of the suite in one light index: names are checked and listed without importing torch."""

import hashlib
import importlib
import importlib.metadata
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from richlearn.errors import UsageError, nearest


@dataclass(frozen=True)
class Entry:
    """One component of the suite.

    Attributes:
        target: its class as `module:Class`.
        summary: one line of meaning.
        figure: the paper's figure it belongs to.
        numerics: raised when a change alters the numbers it gives, so that older results count as stale. It stands here,
            not on the class, so that a plan of finished work is made without importing torch.
        loss: of a task, its loss's name, the unit of what a leaderboard says of it; it stands here for the same reason.
    """

    target: str
    summary: str
    figure: str = ""
    numerics: int = 1
    loss: str = ""


def _read(path: Path, kind: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{kind} file `{path}` cannot be read: {error.strerror}") from error


def _module_of(path: Path, kind: str) -> ModuleType:
    """A user's file as a module, executed once for each content: what runs is exactly what `Catalog.version` hashes."""
    source = _read(path, kind)
    name = f"richlearn_user_{hashlib.sha256(str(path.resolve()).encode() + source).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    module = sys.modules[name] = ModuleType(name)  # dataclasses look their own module up there
    module.__file__ = str(path)
    try:
        # The import system would take yesterday's cached bytecode for a file changed within the same second.
        exec(compile(source, path, "exec"), vars(module))
    except Exception as error:
        del sys.modules[name]
        raise UsageError(f"{kind} file `{path}` cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _class_in_file(path: Path, class_name: str, kind: str) -> type:
    module = _module_of(path, kind)
    if not isinstance(found := getattr(module, class_name, None), type):
        classes = [name for name, value in vars(module).items() if isinstance(value, type)]
        raise UsageError(f"{kind} file `{path}` has no class `{class_name}`; {nearest(class_name, classes)}")
    return found


@dataclass(frozen=True)
class Catalog:
    """The components of one kind: the suite's own, plus those that installed packages register under `entry_points`."""

    kind: str
    entry_points: str
    own: dict[str, Entry] = field(default_factory=dict)

    def entries(self) -> dict[str, Entry]:
        """All entries by name; a package's entry point may add a name, never replace one of the suite's."""
        found = importlib.metadata.entry_points(group=self.entry_points)
        theirs = {point.name: Entry(point.value, f"from package {point.dist.name if point.dist else '?'}") for point in found}
        return {**theirs, **self.own}

    def check(self, name: str) -> None:
        """Raise `UsageError` unless `name` is known or has the form `file.py:Class` of an existing file."""
        if is_user_file(name):
            if not Path(user_path(name)).is_file():
                raise UsageError(f"{self.kind} file `{user_path(name)}` does not exist")
        # Looking through the installed packages takes long beside a look-up, and a plan asks for every trial.
        elif name not in self.own and name not in self.entries():
            raise UsageError(f"unknown {self.kind} `{name}`; {nearest(name, self.entries())}")

    def load(self, name: str) -> type[Any]:
        """The class behind `name`: a name of the suite, of an entry point, or `file.py:Class`."""
        self.check(name)
        if is_user_file(name):
            return _class_in_file(Path(user_path(name)), name.rpartition(":")[2], self.kind)
        entry = self.own.get(name) or self.entries()[name]
        module, _, class_name = entry.target.partition(":")
        return getattr(importlib.import_module(module), class_name)

    def version(self, name: str) -> int | str:
        """What identifies the numerics of `name`: the suite's number, a package's version, or the SHA-256 of a user's file."""
        self.check(name)
        if is_user_file(name):
            return hashlib.sha256(_read(Path(user_path(name)), self.kind)).hexdigest()
        if name in self.own:
            return self.own[name].numerics
        (point,) = importlib.metadata.entry_points(group=self.entry_points, name=name)
        return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"


def is_user_file(name: str) -> bool:
    """Whether `name` has the form `file.py:Class`."""
    return ".py:" in name


def user_path(name: str) -> str:
    """The file part of `file.py:Class`."""
    return name.rpartition(":")[0]


TRAINING_NUMERICS = 1  # of optimisers, bursts, order and seeds
MEASURING_NUMERICS = 2  # of kernels, metrics, recorder and verdict

SCHEMES = Catalog(
    "scheme",
    "richlearn.schemes",
    {
        "standard": Entry("richlearn.schemes:Standard", "PyTorch's default: what each module's own reset draws"),
        "kaiming": Entry("richlearn.schemes:Kaiming", "He et al. 2015: normal weights, variance 2/fan-in"),
        "xavier": Entry("richlearn.schemes:Xavier", "Glorot & Bengio 2010: uniform weights, variance 2/(fan-in + fan-out)"),
        "orthogonal": Entry("richlearn.schemes:Orthogonal", "Saxe et al. 2014: orthogonal weight matrices"),
        "lsuv": Entry("richlearn.schemes:LSUV", "Mishkin & Matas 2016: orthogonal, then unit variance of each layer's output on a batch"),
        "ntk": Entry("richlearn.schemes:NTK", "Jacot et al. 2018: NTK parametrisation, N(0,1) weights divided by sqrt(fan-in)"),
        "mean_field": Entry("richlearn.schemes:MeanField", "mean-field parametrisation: NTK hidden layers, readout divided by its fan-in"),
        "mup": Entry("richlearn.schemes:MuP", "Yang & Hu 2021: Maximal Update Parametrisation, per-layer learning rates included"),
        "relative_scale": Entry(
            "richlearn.schemes:RelativeScale", "standard with the first layer divided and the readout multiplied by α", "6"
        ),
        "embedding_scale": Entry(
            "richlearn.schemes:EmbeddingScale", "standard with the embeddings divided by α and the logits multiplied by τ", "6d, 12"
        ),
        "overall_scale": Entry("richlearn.schemes:OverallScale", "standard with every layer multiplied by τ"),
        "unbalanced": Entry("richlearn.schemes:Unbalanced", "two-layer, symmetrised, every unit at scale τ and conserved quantity δ", "1b"),
        "lambda_balanced": Entry("richlearn.schemes:LambdaBalanced", "Dominé et al. 2024: two-layer with Δ = λI", numerics=2),
        "single_unit": Entry(
            "richlearn.schemes:SingleUnit", "one linear unit with given β₀ and δ: the start of the exact solutions", "2-4"
        ),
        "isotropic": Entry("richlearn.schemes:Isotropic", "deep linear, all layers balanced but the last: aaᵀ − WWᵀ = −εI"),
        "unscaled": Entry("richlearn.schemes:Unscaled", "standard at α = 1, τ = 1: the reference row of a scale sweep"),
        "upstream": Entry("richlearn.schemes:Upstream", "relative scale α = 10: earlier layers learn faster"),
        "balanced": Entry("richlearn.schemes:Balanced", "standard with each unit rescaled to δ = 0, the function kept"),
        "downstream": Entry("richlearn.schemes:Downstream", "relative scale α = 0.1: later layers learn faster"),
        "layer_rates": Entry("richlearn.schemes:LayerRates", "standard with per-layer learning rates: unbalance by rates, not scales"),
    },
)
NETWORKS = Catalog(
    "network",
    "richlearn.networks",
    {
        "linear": Entry("richlearn.networks:Linear", "deep linear network; depth 2 and width 1 is the paper's single neuron", "2-4"),
        "two_layer": Entry("richlearn.networks:TwoLayer", "one hidden layer of piecewise-linear units, no bias by default", "1"),
        "mlp": Entry("richlearn.networks:MLP", "fully connected, any depth, width and activation", "6c"),
        "transformer": Entry("richlearn.networks:Transformer", "decoder on tokens, read at the last position; three variants", "6d"),
    },
)
TASKS = Catalog(
    "task",
    "richlearn.tasks",
    {
        "teacher_student": Entry(
            "richlearn.tasks:TeacherStudent", "labels of a small two-layer ReLU teacher on the unit sphere", "1", loss="MSE"
        ),
        "xor": Entry("richlearn.tasks:Xor", "four clusters in the plane, labelled by the product of their signs", "5a", loss="½ SSE"),
        "modular_arithmetic": Entry(
            "richlearn.tasks:ModularArithmetic", "equations x ∘ y = z modulo a prime: the task of grokking", "6d", loss="cross-entropy"
        ),
        "linear_regression": Entry(
            "richlearn.tasks:LinearRegression", "linear teacher on white, whitened or low-rank input", "2-4", loss="½ SSE"
        ),
        "random_hierarchy": Entry(
            "richlearn.tasks:RandomHierarchy",
            "strings derived from classes by a random hierarchy of rules: what is their class?",
            "6c",
            loss="cross-entropy",
        ),
    },
)
PREDICTIONS = Catalog(
    "prediction",
    "richlearn.predictions",
    {
        "single_neuron": Entry("richlearn.predictions:SingleNeuronRun", "one linear neuron on whitened or low-rank input, exact", "2-4"),
        "implicit_bias": Entry(
            "richlearn.predictions:ImplicitBias", "where one linear neuron ends on low-rank input, and its way there", "4"
        ),
        "balanced_linear": Entry(
            "richlearn.predictions:BalancedLinearRun", "two-layer linear network with Δ = δI on whitened input, exact"
        ),
        "deep_linear": Entry("richlearn.predictions:DeepLinearRun", "deep linear network with isotropic weights: β, kernel and limit"),
        "piecewise_linear": Entry(
            "richlearn.predictions:PiecewiseLinearRun", "every unit of a two-layer network by its closed equation in β_k and δ_k", "5a"
        ),
    },
)
METRICS = Catalog(
    "metric",
    "richlearn.metrics",
    {
        "kernel_distance": Entry("richlearn.metrics:KernelDistance", "how far the NTK has turned since initialisation, in [0, 1]"),
        "kernel_velocity": Entry("richlearn.metrics:KernelVelocity", "how far the NTK has turned since the measurement before"),
        "kernel_alignment": Entry("richlearn.metrics:KernelAlignment", "centred alignment of the NTK with the targets, in [0, 1]"),
        "effective_rank": Entry("richlearn.metrics:EffectiveRank", "number of directions of the NTK: exp of its spectral entropy"),
        "eigenspace_overlap": Entry("richlearn.metrics:EigenspaceOverlap", "how far the NTK's largest eigenvectors are those at the start"),
        "hamming_distance": Entry(
            "richlearn.metrics:ActivationHammingDistance", "share of activation patterns that differ from initialisation"
        ),
        "parameter_distance": Entry("richlearn.metrics:ParameterDistance", "‖θ − θ₀‖₂, absolute or relative to ‖θ₀‖₂"),
        "conserved_quantity": Entry("richlearn.metrics:ConservedQuantity", "per-unit δ: mean, spread, and drift since initialisation"),
        "conservation_laws": Entry(
            "richlearn.metrics:ConservationLaws",
            "every conserved quantity of the network: largest drift since initialisation, table by law",
        ),
        "steps_to_threshold": Entry("richlearn.metrics:StepsToThreshold", "first and first sustained step at which a curve crosses a goal"),
    },
)
