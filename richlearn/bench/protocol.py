"""What a benchmark asks for: a YAML file, checked once, with every error at its `file:line:column`."""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, ValidationInfo, field_validator

from richlearn.bench._axes import MAX_ROWS, MAX_TRIALS, Seeds, Sizes, refused, seeds_text, short, shown
from richlearn.bench._problems import lines
from richlearn.bench._sections import (
    VARIANT,
    Goal,
    Measure,
    Network,
    Optimizer,
    Prediction,
    Regime,
    Scheme,
    Search,
    Section,
    Task,
    Training,
    Variant,
    distinct,
)  # fmt: skip
from richlearn.bench._yaml import Key, Source, dump, read
from richlearn.bench._yaml import load as load_yaml
from richlearn.bench.content import canonical_json, content_hash
from richlearn.catalog import Entry
from richlearn.errors import UsageError, nearest

Score = Literal["test_loss", "steps_to_goal", "time_to_grok", "time_to_train", "sample_complexity", "prediction_error"]
FigureName = Literal[
    "phase_portrait",
    "curves",
    "trajectories",
    "scheme_comparison",
    "dynamics",
    "hyperboloids",
    "solutions",
    "partition",
    "sample_complexity",
    "accuracy_curves",
    "grokking_map",
    "share_reached",
]
# Scores and pictures that a goal of test accuracy belongs to, scores that are times, and pictures of several training sizes.
_OF_ACCURACY = ("time_to_grok", "time_to_train", "sample_complexity", "accuracy_curves", "grokking_map", "share_reached")
_TIMES = ("steps_to_goal", "time_to_grok", "time_to_train")
_OF_SIZES = ("sample_complexity", "scheme_comparison", "accuracy_curves", "grokking_map", "share_reached")

# What decides neither how a trial is trained nor how it is scored.
_NOT_CONTENT = {"name", "summary", "figure", "figures", "seeds"}


_ENDS_TOO_SOON = "`training.stop_below` ends runs that may still have reached their goal: a time would be censored early"


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class SchemeRow:
    """A scheme with its arguments: with the rest of the protocol, a row of the leaderboard."""

    name: str
    parameters: dict[str, Any]
    path: Key = field(default=(), compare=False)  # of the scheme in the protocol, for messages

    @property
    def label(self) -> str:
        """The row as it is shown, such as `unbalanced(tau=0.1, delta=1)`."""
        inside = ", ".join(f"{name}={_shown(value)}" for name, value in self.parameters.items())
        return f"{self.name}({inside})" if inside else self.name

    @property
    def arguments(self) -> dict[str, Any]:
        """The scheme's own arguments: the parameters without the name of the variant."""
        return {name: value for name, value in self.parameters.items() if name != VARIANT}

    @property
    def identity(self) -> str:
        """What tells rows apart: labels of nearly equal parameters look alike."""
        return canonical_json([self.name, self.parameters])


def _rows(schemes: tuple[Scheme, ...], variants: tuple[Variant, ...]) -> list[SchemeRow]:
    named = [{VARIANT: variant.name} for variant in variants] or [{}]
    return [
        SchemeRow(scheme.name, {**variant, **parameters}, ("schemes", index))
        for variant in named
        for index, scheme in enumerate(schemes)
        for parameters in scheme.settings()
    ]


def _matching(rows: list[SchemeRow], name: str) -> list[SchemeRow]:
    return [row for row in rows if name in (row.name, row.label)]


class Protocol(Section):
    """A benchmark: what is learned, by which network, from which initialisations, for how long, and what is scored."""

    if_given = ("variants", "prediction", "train_sizes")

    # Fields stand in the order in which their checks need each other.
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$", description="Name of the benchmark and of its folder of results.")
    summary: str = Field(default="", description="One line of meaning, for `richlearn list`.")
    figure: str = Field(default="", description="The figure of the paper that it reproduces.")
    task: Task
    network: Network
    seeds: Seeds = Field(
        description="Seeds of the scored trials, such as 0-3, 0,2,5-7 or a list. A seed fixes data, teacher, initialisation, order."
    )
    variants: tuple[Variant, ...] = Field(
        default=(), strict=False, description="Further tasks and networks of these kinds; every scheme runs on each. Empty: only the above."
    )
    train_sizes: Sizes = Field(
        default=(),
        strict=False,
        description="Sizes of the training set, the task's `train_size`: every scheme runs on each, for `sample_complexity`.",
    )
    schemes: tuple[Scheme, ...] = Field(strict=False, description="The initialisations to compare.")
    baseline: str | None = Field(default=None, description="The row against which the others are tested: its name, or its label.")
    training: Training
    optimizer: Optimizer
    prediction: Prediction | None = Field(  # pyright: ignore[reportInvalidTypeForm]
        default=None, description="The theory that every run is compared with; null: none."
    )
    measure: Measure = Field(default=Measure(), description="What is looked at while training.")
    goal: Goal = Field(default=Goal(), description="The threshold whose crossing is timed.")
    scores: tuple[Score, ...] = Field(
        default=("test_loss", "steps_to_goal"), strict=False, description="The quantities that the leaderboard ranks."
    )
    regime: Regime = Field(default=Regime(), description="Thresholds of the verdict on a run.")
    search: Search | None = Field(default=None, description="Search of each scheme's learning rate; null: `optimizer.lr` for all.")
    figures: tuple[FigureName, ...] = Field(default=("curves",), strict=False, description="What `richlearn plot` draws.")

    _source: Source = PrivateAttr(default_factory=Source)

    @field_validator("schemes")
    @classmethod
    def _bounded_and_distinct(cls, schemes: tuple[Scheme, ...], info: ValidationInfo) -> tuple[Scheme, ...]:
        if not schemes:
            raise refused("expected at least one scheme, got none")
        variants = info.data.get("variants", ())
        rows = sum(scheme.size for scheme in schemes) * max(1, len(variants))
        if rows > MAX_ROWS:
            raise refused(f"{shown(rows)} rows are more than the {MAX_ROWS:,} that a protocol may have")
        if (count := rows * len(info.data.get("seeds", [0])) * max(1, len(info.data.get("train_sizes", ())))) > MAX_TRIALS:
            raise refused(f"{shown(count)} trials (rows × seeds) are more than the {MAX_TRIALS:,} that a protocol may have")
        first: dict[str, SchemeRow] = {}
        for row in _rows(schemes, variants):
            if first.setdefault(row.identity, row) is not row:
                raise refused(f"row {row.label} stands twice", *row.path[1:])
        return schemes

    @field_validator("baseline")
    @classmethod
    def _names_one_row(cls, baseline: str | None, info: ValidationInfo) -> str | None:
        if baseline is None or "schemes" not in info.data:
            return baseline
        rows = _rows(info.data["schemes"], info.data.get("variants", ()))
        if not (found := _matching(rows, baseline)):
            raise refused(f"expected one of the rows, got {short(baseline)}; {nearest(baseline, {row.label for row in rows[:1000]})}")
        if len(found) > 1:
            raise refused(f"expected one row, got {short(baseline)}, which names {len(found)}; write for example `{found[0].label}`")
        return baseline

    @field_validator("optimizer")
    @classmethod
    def _fits_the_rows_and_steps(cls, optimizer: Optimizer, info: ValidationInfo) -> Optimizer:
        training, schemes = info.data.get("training"), info.data.get("schemes")
        _within_the_budget(training, optimizer.schedule.warmup, "schedule", "warmup")
        if training and optimizer.schedule.per_epoch and not training.epochs:
            raise refused("expected false under `training.steps`: only a budget in `epochs` has some", "schedule", "per_epoch")
        if schemes and optimizer.lr_rule == "inverse_tau_squared" and not any("tau" in {**row.parameters, **row.grid} for row in schemes):
            raise refused("expected constant where no row has a parameter `tau`, got inverse_tau_squared", "lr_rule")
        return optimizer

    @field_validator("measure")
    @classmethod
    def _checks_within_the_budget(cls, measure: Measure, info: ValidationInfo) -> Measure:
        _within_the_budget(info.data.get("training"), measure.check_every, "check_every")
        return measure

    @field_validator("training")
    @classmethod
    def _epochs_have_a_size(cls, training: Training, info: ValidationInfo) -> Training:
        task, sizes = info.data.get("task"), info.data.get("train_sizes", (1,))
        size = task.parameters.get("train_size") if task else 1
        if training.epochs and not sizes and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise refused("expected the task's `train_size` or `train_sizes`, which say how many updates an epoch has", "epochs")
        if training.epochs and any("train_size" in variant.task for variant in info.data.get("variants", ())):
            raise refused("expected `steps` where variants have a `train_size`: they share one budget of updates", "epochs")
        return training

    @field_validator("train_sizes")
    @classmethod
    def _sizes_stand_once(cls, sizes: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        task = info.data.get("task")
        given = [task.parameters if task else {}, *(variant.task for variant in info.data.get("variants", ()))]
        if sizes and any("train_size" in parameters for parameters in given):
            raise refused("`train_size` stands in the task or in a variant too; give it once")
        return sizes

    @field_validator("search")
    @classmethod
    def _searches_elsewhere(cls, search: Search | None, info: ValidationInfo) -> Search | None:
        if search is None:
            return None
        training = info.data.get("training")
        if search.steps and training and training.epochs:
            raise refused("expected null under `training.epochs`: a shorter search needs a budget in `steps`", "steps")
        if search.steps and training and search.steps > training.steps:
            raise refused(f"expected at most `training.steps` = {training.steps}, got {search.steps}", "steps")
        if search.objective in _TIMES and training and training.stop_below:
            raise refused(_ENDS_TOO_SOON, "objective")
        if common := set(search.seeds) & set(info.data.get("seeds", ())):
            raise refused(f"expected seeds that the scores do not use, got {min(common)}", "seeds")
        count = (
            sum(scheme.size for scheme in info.data.get("schemes", ())) * max(1, len(info.data.get("variants", ()))) * search.most_trials
        )
        if count > MAX_TRIALS:
            raise refused(f"up to {shown(count)} search trials are more than the {MAX_TRIALS:,} that a protocol may have")
        return search

    @field_validator("variants")
    @classmethod
    def _distinct_variants(cls, variants: tuple[Variant, ...]) -> tuple[Variant, ...]:
        if variants:
            distinct(tuple(variant.name for variant in variants))
        return variants

    @field_validator("prediction")
    @classmethod
    def _is_gradient_flow(cls, prediction: str | None, info: ValidationInfo) -> str | None:
        """Theory speaks of gradient flow: nothing but small steps of plain gradient descent comes near it."""
        training, optimizer = info.data.get("training"), info.data.get("optimizer")
        if prediction is None or training is None or optimizer is None:
            return prediction
        if training.batch_size is not None or optimizer.name != "sgd" or optimizer.momentum or optimizer.weight_decay:
            raise refused("a prediction is one of gradient flow: expected sgd without momentum and weight decay, and batch_size null")
        if optimizer.schedule.name != "constant":
            raise refused("a prediction is one of gradient flow: expected `optimizer.schedule` constant")
        return prediction

    @field_validator("goal")
    @classmethod
    def _may_be_stopped_at(cls, goal: Goal, info: ValidationInfo) -> Goal:
        training = info.data.get("training")
        if training and training.stop_at_goal and not goal.of_accuracy:
            raise refused("`training.stop_at_goal` needs a `goal` of accuracy: a loss that is reached may rise again unnoticed")
        return goal

    @field_validator("scores")
    @classmethod
    def _distinct_scores(cls, scores: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if "prediction_error" in scores and info.data.get("prediction", "") is None:
            raise refused("`prediction_error` needs a `prediction`", scores.index("prediction_error"))
        _needs_accuracy(scores, info)
        if "sample_complexity" in scores and not info.data.get("train_sizes", (1,)):
            raise refused("`sample_complexity` needs `train_sizes`", scores.index("sample_complexity"))
        if info.data.get("train_sizes") and set(scores) != {"sample_complexity"}:
            raise refused("`train_sizes` have one score: write `scores: [sample_complexity]`; the others are of one training set")
        training = info.data.get("training")
        if training and training.stop_below and (early := next((name for name in scores if name in _TIMES), None)):
            raise refused(_ENDS_TOO_SOON, scores.index(early))
        return distinct(scores)

    @field_validator("figures")
    @classmethod
    def _figures_have_their_data(cls, figures: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if "trajectories" in figures and not getattr(info.data.get("measure"), "directions", True):
            raise refused("`trajectories` needs `measure.directions: true`", figures.index("trajectories"))
        _needs_accuracy(figures, info)
        if "sample_complexity" in figures and not info.data.get("train_sizes", (1,)):
            raise refused("`sample_complexity` needs `train_sizes`", figures.index("sample_complexity"))
        if info.data.get("train_sizes") and (other := next((name for name in figures if name not in _OF_SIZES), None)):
            raise refused(f"`{other}` is of one training set: `train_sizes` have {', '.join(_OF_SIZES)}")
        maps = any({"tau", "alpha"} <= {*row.parameters, *row.grid} for row in info.data.get("schemes", ()))
        if "grokking_map" in figures and "schemes" in info.data and not maps:
            raise refused("`grokking_map` needs rows with the parameters `tau` and `alpha`", figures.index("grokking_map"))
        for name in ("dynamics", "hyperboloids", "solutions", "partition"):
            if name in figures and info.data.get("prediction", "") is None:
                raise refused(f"`{name}` needs a `prediction`", figures.index(name))
        return distinct(figures) if figures else figures

    def cells(self) -> list[SchemeRow]:
        """The rows in the protocol's order, grids expanded."""
        return _rows(self.schemes, self.variants)

    def baseline_row(self) -> SchemeRow | None:
        """The row against which the others are tested."""
        return _matching(self.cells(), self.baseline)[0] if self.baseline else None

    def content(self) -> dict[str, Any]:
        """What is hashed: all but seeds, texts and figures, as plain data."""
        return self.model_dump(mode="json", exclude=_NOT_CONTENT)

    def updates_per_epoch(self, train_size: int) -> int:
        """Optimiser updates that see the whole training set once; a last partial batch is one."""
        return math.ceil(train_size / (self.training.batch_size or train_size))

    def budget(self, train_size: int | None = None) -> int:
        """Updates of a run, by default of the largest training set."""
        if self.training.steps is not None:
            return self.training.steps
        assert self.training.epochs is not None
        size = train_size or max(self.train_sizes, default=0) or self.task.parameters["train_size"]
        return self.training.epochs * self.updates_per_epoch(size)

    def variant(self, row: SchemeRow) -> Variant | None:
        """The variant of the task and network that a row runs on."""
        return next((each for each in self.variants if each.name == row.parameters.get(VARIANT)), None)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of `content`: equal for protocols that ask for the same in another layout, order of keys or way to write an axis."""
        return content_hash(self.content())

    def resolved_yaml(self) -> str:
        """The whole protocol as YAML, every default but those of `if_given` written; it loads back to an equal one."""
        return dump({**self.model_dump(mode="json"), "seeds": seeds_text(self.seeds)})

    def changed(self, data: dict[str, Any]) -> "Protocol":
        """A protocol of other `data` whose errors still point into this one's file."""
        return parse(replace(self._source, data=data))

    def problem(self, path: Key, message: str) -> str:
        """The line of an error found later: `message` after the `file:line:column` of the value at `path`."""
        return self._source.problem(path, message)


def _within_the_budget(training: Training | None, value: int, *path: str) -> None:
    """Refuse a `value` in updates, or epochs, beyond those of the budget, if there is a valid one."""
    if training and value > (budget := training.steps or training.epochs or 0):
        raise refused(f"expected at most `training.{'steps' if training.steps else 'epochs'}` = {budget}, got {value}", *path)


def _needs_accuracy(names: tuple[str, ...], info: ValidationInfo) -> None:
    """Refuse the first of `names` that speaks of accuracies where the goal is not one of the test set."""
    goal = info.data.get("goal")
    found = next((name for name in names if name in _OF_ACCURACY), None)
    if found and goal and goal.quantity != "test_accuracy":
        raise refused(f"`{found}` needs `goal.quantity: test_accuracy`", names.index(found))


def parse(source: Source) -> Protocol:
    """The protocol that `source` holds.

    Raises:
        UsageError: all that is wrong with it, a line each.
    """
    errors: ValidationError | None = None
    try:
        protocol = Protocol.model_validate(source.data)
        protocol._source = source
    except ValidationError as error:
        errors, protocol = error, None
    if protocol is None or source.problems:
        raise UsageError("\n".join(lines(source, Protocol, errors)))
    return protocol


def override(source: Source, option: str) -> Source:
    """`source` with one value replaced, as `--set training.steps=100` asks; list items are numbered from 0.

    Raises:
        UsageError: there is no `=`, or the value is not YAML. An unknown key is found by `parse`.
    """
    key, equals, text = option.partition("=")
    if not equals or not key:
        raise UsageError(f"--set {option}: expected key=value, such as training.steps=100")
    path = tuple(int(part) if part.isdecimal() else part for part in key.strip().split("."))
    value = load_yaml(text, f"--set {option}")
    if value.problems:
        raise UsageError(f"--set {option}: {value.problems[0][1]}")
    return source.with_value(path, value.data, option)


def suite_folder() -> Path:
    """Where the suite's own protocols lie: in the installed package, else in the checkout."""
    package = Path(__file__).parents[1]
    return installed if (installed := package / "benchmarks").is_dir() else package.parent / "benchmarks"


def names() -> dict[str, Entry]:
    """The suite's benchmarks by name; an entry's target is the file."""
    found = {}
    for path in sorted(suite_folder().glob("*.yaml")):
        data = read(path).data or {}
        found[path.stem] = Entry(str(path), summary=str(data.get("summary", "")), figure=str(data.get("figure", "")))
    return found


def find(name_or_path: str | Path) -> Path:
    """The file of a benchmark of the suite, or the file at a path.

    Raises:
        UsageError: there is neither.
    """
    text, path = str(name_or_path), Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if path.is_file():
            return path
        raise UsageError(f"there is no protocol file `{path}`")
    own = {path.stem: path for path in suite_folder().glob("*.yaml")}
    if text in own:
        return own[text]
    raise UsageError(f"unknown benchmark `{text}`; {nearest(text, own)} (or give the path of a YAML file)")


def load(name_or_path: str | Path, overrides: tuple[str, ...] | list[str] = ()) -> Protocol:
    """The protocol of a benchmark's name or of a YAML file, with `key=value` overrides.

    Raises:
        UsageError: there is none, or something is wrong with it: a line for each error.
    """
    source = read(find(name_or_path))
    for option in overrides:
        source = override(source, option)
    return parse(source)


def json_schema() -> dict[str, Any]:
    """The JSON Schema from which editors complete and check protocols."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Protocol.model_json_schema()}
