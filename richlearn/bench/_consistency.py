"""What the fields of a protocol ask of those that stand before them; an invalid one is absent from `data` and asked nothing."""

from collections.abc import Callable, Mapping
from typing import Any

from richlearn.bench._axes import MAX_ROWS, MAX_TRIALS, refused, short, shown
from richlearn.bench._sections import Goal, Measure, Optimizer, Scheme, Search, Training, Variant, distinct
from richlearn.bench.rows import SchemeRow, matching, scheme_rows
from richlearn.errors import nearest

Data = Mapping[str, Any]

# Scores and pictures that a goal of test accuracy belongs to, scores that are times, and pictures of several training sizes.
_OF_ACCURACY = ("time_to_grok", "time_to_train", "sample_complexity", "accuracy_curves", "grokking_map", "share_reached")
_TIMES = ("steps_to_goal", "time_to_grok", "time_to_train")
_OF_SIZES = ("sample_complexity", "scheme_comparison", "accuracy_curves", "grokking_map", "share_reached")
_OF_PREDICTIONS = ("prediction_error", "dynamics", "hyperboloids", "solutions", "partition")

_ENDS_TOO_SOON = "`training.stop_below` ends runs that may still have reached their goal: a time would be censored early"


def _within_the_budget(training: Training | None, value: int, *path: str) -> None:
    """Refuse a `value` in updates, or epochs, beyond those of the budget."""
    if training and value > (budget := training.steps or training.epochs or 0):
        raise refused(f"expected at most `training.{'steps' if training.steps else 'epochs'}` = {budget}, got {value}", *path)


def _have_their_data(names: tuple[str, ...], data: Data) -> None:
    """Refuse the first of some scores or pictures that needs what the protocol does not give."""
    needs = (
        (_OF_ACCURACY, getattr(data.get("goal"), "quantity", "test_accuracy") == "test_accuracy", "`goal.quantity: test_accuracy`"),
        (("sample_complexity",), bool(data.get("train_sizes", (1,))), "`train_sizes`"),
        (_OF_PREDICTIONS, data.get("prediction", "") is not None, "a `prediction`"),
    )
    for needy, given, what in needs:
        found = next((name for name in names if name in needy), None)
        if found and not given:
            raise refused(f"`{found}` needs {what}", names.index(found))


def _variants(variants: tuple[Variant, ...], data: Data) -> None:
    if variants:
        distinct(tuple(variant.name for variant in variants))


def _train_sizes(sizes: tuple[int, ...], data: Data) -> None:
    task = data.get("task")
    given = [task.parameters if task else {}, *(variant.task for variant in data.get("variants", ()))]
    if sizes and any("train_size" in parameters for parameters in given):
        raise refused("`train_size` stands in the task or in a variant too; give it once")


def _schemes(schemes: tuple[Scheme, ...], data: Data) -> None:
    if not schemes:
        raise refused("expected at least one scheme, got none")
    variants = data.get("variants", ())
    rows = sum(scheme.size for scheme in schemes) * max(1, len(variants))
    if rows > MAX_ROWS:
        raise refused(f"{shown(rows)} rows are more than the {MAX_ROWS:,} that a protocol may have")
    if (count := rows * len(data.get("seeds", [0])) * max(1, len(data.get("train_sizes", ())))) > MAX_TRIALS:
        raise refused(f"{shown(count)} trials (rows × seeds) are more than the {MAX_TRIALS:,} that a protocol may have")
    first: dict[str, SchemeRow] = {}
    for row in scheme_rows(schemes, variants):
        if first.setdefault(row.identity, row) is not row:
            raise refused(f"row {row.label} stands twice", *row.path[1:])


def _baseline(baseline: str | None, data: Data) -> None:
    if baseline is None or "schemes" not in data:
        return
    rows = scheme_rows(data["schemes"], data.get("variants", ()))
    if not (found := matching(rows, baseline)):
        raise refused(f"expected one of the rows, got {short(baseline)}; {nearest(baseline, {row.label for row in rows[:1000]})}")
    if len(found) > 1:
        raise refused(f"expected one row, got {short(baseline)}, which names {len(found)}; write for example `{found[0].label}`")


def _training(training: Training, data: Data) -> None:
    task, sizes = data.get("task"), data.get("train_sizes", (1,))
    size = task.parameters.get("train_size") if task else 1
    if training.epochs and not sizes and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise refused("expected the task's `train_size` or `train_sizes`, which say how many updates an epoch has", "epochs")
    if training.epochs and any("train_size" in variant.task for variant in data.get("variants", ())):
        raise refused("expected `steps` where variants have a `train_size`: they share one budget of updates", "epochs")


def _optimizer(optimizer: Optimizer, data: Data) -> None:
    training, schemes = data.get("training"), data.get("schemes")
    _within_the_budget(training, optimizer.schedule.warmup, "schedule", "warmup")
    if training and optimizer.schedule.per_epoch and not training.epochs:
        raise refused("expected false under `training.steps`: only a budget in `epochs` has some", "schedule", "per_epoch")
    if schemes and optimizer.lr_rule == "inverse_tau_squared" and not any("tau" in {**row.parameters, **row.grid} for row in schemes):
        raise refused("expected constant where no row has a parameter `tau`, got inverse_tau_squared", "lr_rule")


def _prediction(prediction: str | None, data: Data) -> None:
    """Theory speaks of gradient flow: nothing but small steps of plain gradient descent comes near it."""
    training, optimizer = data.get("training"), data.get("optimizer")
    if prediction is None or training is None or optimizer is None:
        return
    if training.batch_size is not None or optimizer.name != "sgd" or optimizer.momentum or optimizer.weight_decay:
        raise refused("a prediction is one of gradient flow: expected sgd without momentum and weight decay, and batch_size null")
    if optimizer.schedule.name != "constant":
        raise refused("a prediction is one of gradient flow: expected `optimizer.schedule` constant")


def _measure(measure: Measure, data: Data) -> None:
    _within_the_budget(data.get("training"), measure.check_every, "check_every")


def _goal(goal: Goal, data: Data) -> None:
    training = data.get("training")
    if training and training.stop_at_goal and not goal.of_accuracy:
        raise refused("`training.stop_at_goal` needs a `goal` of accuracy: a loss that is reached may rise again unnoticed")


def _scores(scores: tuple[str, ...], data: Data) -> None:
    _have_their_data(scores, data)
    if data.get("train_sizes") and set(scores) != {"sample_complexity"}:
        raise refused("`train_sizes` have one score: write `scores: [sample_complexity]`; the others are of one training set")
    training = data.get("training")
    if training and training.stop_below and (early := next((name for name in scores if name in _TIMES), None)):
        raise refused(_ENDS_TOO_SOON, scores.index(early))
    distinct(scores)


def _search(search: Search | None, data: Data) -> None:
    if search is None:
        return
    training = data.get("training")
    if search.steps and training and training.epochs:
        raise refused("expected null under `training.epochs`: a shorter search needs a budget in `steps`", "steps")
    if search.steps and training and search.steps > training.steps:
        raise refused(f"expected at most `training.steps` = {training.steps}, got {search.steps}", "steps")
    if search.objective in _TIMES and training and training.stop_below:
        raise refused(_ENDS_TOO_SOON, "objective")
    if search.objective == "test_error" and not getattr(data.get("goal"), "of_accuracy", True):
        raise refused("test_error needs a `goal` of accuracy", "objective")
    every = getattr(data.get("measure"), "check_every", 0)
    if search.objective in _TIMES and search.steps and search.steps < every:
        raise refused(f"expected at least `measure.check_every` = {every}, or no search sees the goal, got {search.steps}", "steps")
    if common := set(search.seeds) & set(data.get("seeds", ())):
        raise refused(f"expected seeds that the scores do not use, got {min(common)}", "seeds")
    rows = sum(scheme.size for scheme in data.get("schemes", ())) * max(1, len(data.get("variants", ())))
    if (count := rows * search.most_trials) > MAX_TRIALS:
        raise refused(f"up to {shown(count)} search trials are more than the {MAX_TRIALS:,} that a protocol may have")


def _figures(figures: tuple[str, ...], data: Data) -> None:
    if "trajectories" in figures and not getattr(data.get("measure"), "directions", True):
        raise refused("`trajectories` needs `measure.directions: true`", figures.index("trajectories"))
    _have_their_data(figures, data)
    if data.get("train_sizes") and (other := next((name for name in figures if name not in _OF_SIZES), None)):
        raise refused(f"`{other}` is of one training set: `train_sizes` have {', '.join(_OF_SIZES)}")
    maps = any({"tau", "alpha"} <= {*row.parameters, *row.grid} for row in data.get("schemes", ()))
    if "grokking_map" in figures and "schemes" in data and not maps:
        raise refused("`grokking_map` needs rows with the parameters `tau` and `alpha`", figures.index("grokking_map"))
    if figures:
        distinct(figures)


CHECKS: dict[str, Callable[[Any, Data], None]] = {
    "variants": _variants,
    "train_sizes": _train_sizes,
    "schemes": _schemes,
    "baseline": _baseline,
    "training": _training,
    "optimizer": _optimizer,
    "prediction": _prediction,
    "measure": _measure,
    "goal": _goal,
    "scores": _scores,
    "search": _search,
    "figures": _figures,
}
