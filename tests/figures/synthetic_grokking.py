"""Synthetic results of classification: times that fall with α and τ as grokking's do, errors that fall with the training size."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
from synthetic_results import cell_of

from richlearn.bench.content import canonical_json

BUDGET = 10_000
CLASSES = 8
SIZES = (131, 523, 2080, 8281, 32966, 104113)


def classification(name, cells, seeds=5, **options):
    return SimpleNamespace(
        name=name,
        cells=lambda: list(cells),
        baseline_row=lambda: options.get("baseline"),
        seeds=tuple(range(seeds)),
        budget=lambda: BUDGET,
        goal=SimpleNamespace(quantity="test_accuracy", threshold=0.99),
        train_sizes=options.get("train_sizes", ()),
    )


def grid(taus=(0.5, 0.75, 1.0, 1.25, 1.5), alphas=(0.1, 0.3, 1.0, 3.0, 10.0), extra=((1.0, 100.0),)):
    """A τ × α grid and single cells beside it."""
    points = [(tau, alpha) for tau in taus for alpha in alphas] + list(extra)
    return [cell_of("relative_scale", tau=tau, alpha=alpha) for tau, alpha in points]


def rows(*alphas):
    return [cell_of("relative_scale", alpha=alpha) for alpha in alphas]


def _trial(cell, seed, size=None, **columns):
    name = f"{cell.label}-{seed}-{size}"
    shared = {"trial": name, "batch": f"b{seed}", "role": "score", "seed": seed, "scheme": cell.name, "status": "finished"}
    return {
        **shared,
        "parameters": canonical_json(cell.parameters),
        "train_size": size,
        "steps": BUDGET,
        "zero_loss": np.log(CLASSES),
        **columns,
    }


def _frame(trials):
    whole = ("train_size", "first_reached", "sustained_reached", "fit_first_reached", "fit_sustained_reached", "stopped_at", "diverged_at")
    frame = pd.DataFrame(trials)
    return frame.astype({name: "Int64" for name in whole if name in frame})


def _within(time):
    return int(time) if time <= BUDGET else None


def _times(cell, seed):
    tau, alpha = cell.parameters.get("tau", 1.0), cell.parameters.get("alpha", 1.0)
    rng = np.random.default_rng([seed, int(1000 * alpha), int(100 * tau), *cell.name.encode()])
    fit = 10 * np.round(9 * (1 + 1.5 / alpha**0.5) * tau**-0.4 * np.exp(0.15 * rng.normal()))
    return fit, fit + 10 * np.round(150 * alpha**-0.7 * tau**-1.5 * np.exp(0.25 * rng.normal()))


def _curve(name, fit, grok, until):
    steps = np.unique([0, *np.geomspace(1, until, 40).round(), until]).astype(int)
    rise = [1 / CLASSES + (1 - 1 / CLASSES) / (1 + (time / (1.5 * np.maximum(steps, 0.1))) ** 12) for time in (fit, grok)]
    return pd.DataFrame({"trial": name, "step": steps, "train_accuracy": rise[0], "test_accuracy": rise[1]})


def grokking(protocol, slowdown=1.0, diverged=()):
    """Trials and curves; a run ends 100 updates after its goal is reached. `diverged`: pairs of a cell's number and a seed."""
    trials, curves = [], []
    for place, cell in enumerate(protocol.cells()):
        for seed in protocol.seeds:
            fit, grok = (slowdown * time for time in _times(cell, seed))
            until = int(min(grok + 100, BUDGET))
            trial = _trial(cell, seed, fit_first_reached=_within(fit), first_reached=_within(grok), diverged_at=None)
            curve = _curve(trial["trial"], fit, grok, until)
            trial |= {name: curve[name].iloc[-1] for name in ("train_accuracy", "test_accuracy")}
            if (place, seed) in diverged:
                trial |= dict.fromkeys(("fit_first_reached", "first_reached"), None) | {"status": "diverged", "diverged_at": 30}
                trial |= dict.fromkeys(("train_accuracy", "test_accuracy"), np.nan)
                curve = curve[curve["step"] < 30]
            trials.append(trial)
            curves.append(curve)
    return _frame(trials), pd.concat(curves, ignore_index=True)


def sampling(protocol, needed, diverged=(), sizes=SIZES):
    """Trials whose error is 0.875 / (1 + (2P/needed)⁴) times noise, `needed` a function of the cell; at `diverged` sizes, none."""
    trials = []
    for cell in protocol.cells():
        for seed in protocol.seeds:
            rng = np.random.default_rng([seed, int(1000 * cell.parameters.get("alpha", 1.0))])
            for size in sizes:
                error = 0.875 / (1 + (2 * size / needed(cell)) ** 4) * np.exp(0.2 * rng.normal())
                error = np.round(min(error, 0.95) * 26214) / 26214
                columns = {"test_accuracy": 1 - error, "train_accuracy": 1.0}
                if size in diverged:
                    columns = {"test_accuracy": np.nan, "train_accuracy": np.nan, "status": "diverged"}
                trials.append(_trial(cell, seed, size, **columns))
    return _frame(trials)


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def line(axes, start):
    (found,) = [line for line in axes.lines if line.get_label().startswith(start)]
    return found
