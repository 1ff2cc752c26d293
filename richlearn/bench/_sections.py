"""The sections of a protocol: each checks itself, and its descriptions are what an editor shows."""

import itertools
import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from richlearn import catalog
from richlearn.bench._axes import Axis, Parameters, Seeds, refused, seeds
from richlearn.errors import UsageError

VARIANT = "variant"  # the parameter of a row that names its variant


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _known(kind: catalog.Catalog) -> Any:
    """The type of a name in `kind`: one of the suite, of an installed package, or `file.py:Class`."""

    def check(name: str) -> str:
        try:
            kind.check(name)
        except UsageError as error:
            raise refused(str(error)) from None
        return name

    names: Any = {"anyOf": [{"enum": sorted(kind.own)}, {"pattern": r"\.py:"}]}
    description = f"A {kind.kind} of `richlearn list {kind.kind}s`, or `file.py:Class`."
    return Annotated[str, AfterValidator(check), Field(description=description, json_schema_extra=names)]


def distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """`values`, refused where there are none or one stands twice."""
    if not values:
        raise refused("expected at least one, got none")
    if len(set(values)) < len(values):
        raise refused(f"expected distinct values, got {', '.join(map(str, values))}")
    return values


# Whole numbers may be written as floats: `steps: 1e5`.
Count = Annotated[int, Field(ge=1, le=2**53), BeforeValidator(_whole)]
Natural = Annotated[int, Field(ge=0, le=2**53), BeforeValidator(_whole)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Pair = Annotated[tuple[Momentum, Momentum], Field(strict=False)]


class Section(BaseModel):
    """Immutable, without unknown keys and without conversions: `"5"` is no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True)

    if_given: ClassVar[tuple[str, ...]] = ()
    """Keys that are written, and hashed, only where they differ from their default: protocols that came before them keep their hashes."""

    @model_serializer(mode="wrap")
    def _without_what_is_not_given(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        away = {name for name in self.if_given if getattr(self, name) == fields[name].default}
        return {name: value for name, value in serialize(self).items() if name not in away}


class Task(Section):
    """What is learned: the data and its loss."""

    name: _known(catalog.TASKS)  # pyright: ignore[reportInvalidTypeForm]
    parameters: Parameters = Field(default={}, description="Arguments of the task's class, such as `dimension` or `train_size`.")


class Network(Section):
    """What learns."""

    name: _known(catalog.NETWORKS)  # pyright: ignore[reportInvalidTypeForm]
    parameters: Parameters = Field(default={}, description="Arguments of the network's class, such as `width`.")


Prediction = _known(catalog.PREDICTIONS)


class Variant(Section):
    """Another task and network of the same kinds: every scheme runs on each variant."""

    name: Annotated[
        str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$", description="What its rows are called, as parameter `variant`.")
    ]
    task: Parameters = Field(default={}, description="Arguments of the task's class that differ from `task.parameters`.")
    network: Parameters = Field(default={}, description="Arguments of the network's class that differ from `network.parameters`.")


class Scheme(Section):
    """One initialisation scheme: a row of the leaderboard, or several where `grid` is given."""

    name: _known(catalog.SCHEMES)  # pyright: ignore[reportInvalidTypeForm]
    parameters: Parameters = Field(default={}, description="Arguments of the scheme's class, the same for every row.")
    grid: dict[str, Axis] = Field(
        default={}, description="Values for each swept argument; the rows are all combinations, the last axis fastest."
    )

    @field_validator("grid")
    @classmethod
    def _one_source_each(cls, grid: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        for name in grid:
            if name in info.data.get("parameters", {}):
                raise refused(f"`{name}` stands in `parameters` too; give it once", name)
            if name == VARIANT:
                raise refused("`variant` is what the rows of `variants` are called by", name)
        return grid

    @property
    def size(self) -> int:
        """The number of rows, without making them."""
        return math.prod(map(len, self.grid.values()))

    def settings(self) -> list[dict[str, Any]]:
        """The arguments of each row."""
        return [{**self.parameters, **dict(zip(self.grid, values, strict=True))} for values in itertools.product(*self.grid.values())]


class Training(Section):
    """How long, in which portions and in which arithmetic."""

    if_given = ("epochs", "stop_at_goal", "stop_below")

    steps: Count | None = Field(default=None, description="Optimiser updates of every network: the budget that all runs share.")
    epochs: Count | None = Field(
        default=None,
        description="The budget in passes over the training set, instead of `steps`; `measure.check_every` then counts epochs.",
    )
    batch_size: Count | None = Field(default=None, description="Samples of an update; null: the whole training set.")
    stack: Count = Field(default=32, description="Most networks that train together; decides the batches, on every device alike.")
    precision: Literal["32-true", "64-true"] = Field(default="32-true", description="Lightning's name of the arithmetic.")
    compile: bool = Field(
        default=True, description="Compile the update; it differs from eager arithmetic in rounding. Without a compiler: eager."
    )
    threads: Count = Field(default=1, description="Threads of a worker on a CPU; they differ in rounding, too.")
    stop_at_goal: bool = Field(
        default=False,
        description="End a run when the goal is sustained; of an accuracy of the test set, when it holds on the training set as well.",
    )
    stop_below: Positive | None = Field(
        default=None, description="End a run whose loss on the whole training set lies below this, looked at every `measure.check_every`."
    )

    @model_validator(mode="after")
    def _one_budget(self) -> "Training":
        if (self.steps is None) == (self.epochs is None):
            raise refused("expected either `steps` or `epochs`, got " + ("neither" if self.steps is None else "both"))
        return self


class Schedule(Section):
    """The learning rate over the run, as a factor of `lr`."""

    if_given = ("period", "per_epoch")

    name: Literal["constant", "warmup", "cosine"] = Field(
        default="constant", description="warmup: linear, then constant; cosine: to 0 at the last step."
    )
    warmup: Natural = Field(default=0, description="Updates over which the rate rises linearly; for warmup and cosine.")
    period: Positive = Field(default=1.0, description="Share of the budget at which the cosine is 0; below 1 it rises again afterwards.")
    per_epoch: bool = Field(default=False, description="Whether the cosine changes once an epoch instead of at every update.")

    @model_validator(mode="after")
    def _warmup_is_used(self) -> "Schedule":
        if self.name == "constant" and self.warmup:
            raise refused(f"expected 0 under schedule constant, got {self.warmup}; name the schedule warmup", "warmup")
        if self.name == "warmup" and not self.warmup:
            raise refused("expected at least 1 update under schedule warmup, got 0", "warmup")
        if self.name != "cosine" and (self.period != 1 or self.per_epoch):
            raise refused(f"`period` and `per_epoch` belong to the schedule cosine, got {self.name}")
        return self


class Optimizer(Section):
    """The optimiser and its learning rate, before the factors per layer that a scheme gives."""

    name: Literal["sgd", "adam", "adamw"] = Field(default="sgd", description="sgd with the whole training set is gradient descent.")
    lr: Positive = Field(description="Base learning rate.")
    lr_rule: Literal["constant", "inverse_tau_squared"] = Field(
        default="constant", description="inverse_tau_squared: lr ÷ τ² for the rows that have a parameter `tau`."
    )
    momentum: Momentum = Field(default=0.0, description="Heavy-ball momentum; sgd only.")
    betas: Pair = Field(default=(0.9, 0.999), description="Decay of the two running means; adam and adamw only.")
    eps: Positive = Field(default=1e-8, description="Added to the denominator; adam and adamw only.")
    weight_decay: float = Field(default=0.0, ge=0, description="L2 penalty (sgd, adam) or decoupled decay (adamw).")
    schedule: Schedule = Field(default=Schedule(), description="The learning rate over the run.")

    @model_validator(mode="after")
    def _momentum_is_used(self) -> "Optimizer":
        if self.name != "sgd" and self.momentum:
            raise refused(f"expected 0 under {self.name}, which has `betas` instead, got {self.momentum}", "momentum")
        return self


class Measure(Section):
    """What is looked at while training."""

    probe: Count = Field(default=256, description="The first training inputs, on which kernels and activation patterns are measured.")
    points_per_decade: Count = Field(
        default=4, le=1000, description="Measurements per factor 10 of the step number, besides step 0 and the last."
    )
    check_every: Count = Field(
        default=100, description="Updates (under `training.epochs`: epochs) between two looks at the goal: the resolution of times."
    )
    directions: bool = Field(default=False, description="Record |a_k| w_k of every hidden unit, for the plot of trajectories.")


class Goal(Section):
    """The threshold whose first and sustained crossing is timed."""

    if_given = ("threshold",)

    quantity: Literal["test_loss", "train_loss", "test_accuracy", "train_accuracy"] = Field(
        default="test_loss",
        description="A loss, which must fall below the threshold, or of a classification an accuracy, which must reach it.",
    )
    fraction_of_zero_predictor: Positive = Field(
        default=0.1, description="The threshold of a loss, as a share of the test loss of a network that answers 0."
    )
    threshold: float | None = Field(default=None, gt=0, le=1, description="The threshold of an accuracy.")
    sustained: Count = Field(default=1, description="Checks in a row for which the goal must hold.")

    @property
    def of_accuracy(self) -> bool:
        """Whether the goal is one of a classification."""
        return self.quantity.endswith("accuracy")

    @model_validator(mode="after")
    def _threshold_of_an_accuracy(self) -> "Goal":
        if self.of_accuracy != (self.threshold is not None):
            raise refused(f"`threshold` belongs to an accuracy, and an accuracy needs one; got {self.quantity} and {self.threshold}")
        if self.of_accuracy and self.fraction_of_zero_predictor != type(self).model_fields["fraction_of_zero_predictor"].default:
            raise refused("an accuracy has a `threshold` instead", "fraction_of_zero_predictor")
        return self


class Regime(Section):
    """The thresholds of the verdict on a run: lazy, rich, delayed rich, or aligned but not fitted."""

    kernel: Share = Field(default=0.1, description="Final kernel distance below which a run is lazy.")
    fit: Share = Field(default=0.5, description="Share of the initial training loss above which a run has not fitted.")
    delay: Positive = Field(
        default=2.0, description="Rich if the kernel is half way after at most this many times the fit's half-way step; else delayed."
    )


class Search(Section):
    """Search of each scheme's learning rate, on trials of their own, before the scored ones."""

    if_given = ("steps", "centre")

    seeds: Seeds = Field(default=seeds("1000-1002"), description="Seeds of the search; the scores must not use them.")
    values: Count = Field(default=3, le=101, description="Learning rates to try, a factor √10 apart.")
    max_extensions: Natural = Field(default=2, le=20, description="Most further rates on either side while the best one is at an edge.")
    objective: Literal["test_loss", "test_error", "steps_to_goal"] = Field(
        default="test_loss",
        description="What the best rate makes smallest. steps_to_goal: the median over the seeds, and unless the schedule is a cosine "
        "the middle rate runs first and every other one only until it is too late to win.",
    )
    steps: Count | None = Field(default=None, description="Updates of a search trial, instead of `training.steps`.")
    centre: Literal["edge", "fastest_layer"] = Field(
        default="edge",
        description="The middle rate. edge: the edge of stability of the scheme's kernel at initialisation (under Adam `optimizer.lr`); "
        "fastest_layer: the rate at which the layer with the largest multiplier learns at `optimizer.lr`.",
    )

    @property
    def most_trials(self) -> int:
        """The most trials that the search of one row takes."""
        return len(self.seeds) * (self.values + 2 * self.max_extensions)
