"""What a benchmark asks for: a YAML file, checked once, with every error at its `file:line:column`."""

import math
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, ValidationError, ValidationInfo, field_validator

from richlearn.bench._axes import Seeds, Sizes, seeds_text
from richlearn.bench._consistency import CHECKS
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
)  # fmt: skip
from richlearn.bench._yaml import Key, Source, dump, read
from richlearn.bench._yaml import load as load_yaml
from richlearn.bench.content import content_hash
from richlearn.bench.rows import SchemeRow, matching, scheme_rows
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
# What decides neither how a trial is trained nor how it is scored.
_NOT_CONTENT = {"name", "summary", "figure", "figures", "seeds"}


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

    @field_validator(*CHECKS)
    @classmethod
    def _agrees_with_the_fields_before(cls, value: Any, info: ValidationInfo) -> Any:
        CHECKS[info.field_name or ""](value, info.data)
        return value

    def cells(self) -> list[SchemeRow]:
        """The rows in the protocol's order, grids expanded."""
        return scheme_rows(self.schemes, self.variants)

    def baseline_row(self) -> SchemeRow | None:
        """The row against which the others are tested."""
        return matching(self.cells(), self.baseline)[0] if self.baseline else None

    def content(self) -> dict[str, Any]:
        """What is hashed: all but seeds, texts and figures, as plain data."""
        return self.model_dump(mode="json", exclude=_NOT_CONTENT)

    def updates_per_epoch(self, train_size: int) -> int:
        """Optimiser updates that see the whole training set once; a last partial batch is one."""
        return math.ceil(train_size / (self.training.batch_size or train_size))

    def check_every(self, train_size: int | None = None) -> int:
        """Updates between two looks at the goal."""
        return self.measure.check_every * (self.updates_per_epoch(self._size(train_size)) if self.training.epochs else 1)

    def _size(self, train_size: int | None) -> int:
        return train_size or max(self.train_sizes, default=0) or self.task.parameters["train_size"]

    def budget(self, train_size: int | None = None) -> int:
        """Updates of a run, by default of the largest training set."""
        if self.training.steps is not None:
            return self.training.steps
        assert self.training.epochs is not None
        return self.training.epochs * self.updates_per_epoch(self._size(train_size))

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
