"""Synthetic results, with the shapes that real ones have: a τ × δ grid whose small τ and large δ learn best, and a list of schemes."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from richlearn.bench import leaderboard, tables
from richlearn.bench.content import canonical_json

STEPS = 20000
TIMES = np.unique(np.concatenate([[0], np.geomspace(1, STEPS, 30).round()])).astype(int)


def cell_of(name, **parameters):
    inside = ", ".join(f"{key}={value:g}" for key, value in parameters.items())
    return SimpleNamespace(name=name, parameters=parameters, label=f"{name}({inside})" if inside else name)


def protocol_of(name, cells, seeds, **options):
    return SimpleNamespace(
        name=name,
        hash="ab" * 32,
        cells=lambda: list(cells),
        seeds=tuple(range(seeds)),
        scores=("test_loss", "steps_to_goal"),
        baseline=options.get("baseline"),
        baseline_row=lambda: next((cell for cell in cells if cell.name == options.get("baseline")), None),
        training=SimpleNamespace(steps=STEPS),
        budget=lambda: STEPS,
        train_sizes=(),
        network=SimpleNamespace(name="two_layer"),
        task=SimpleNamespace(name="teacher_student", parameters={"dimension": options.get("dimension", 100)}),
        goal=SimpleNamespace(quantity="test_loss", fraction_of_zero_predictor=0.1),
    )


def curve_of(tau, delta, rng, units=10):
    """Sigmoids in log time: small τ moves the kernel far, small δ late."""
    onset = 300 * (1 + 3 * tau) * np.exp(-1.2 * delta) * np.exp(0.2 * rng.normal())
    progress = 1 / (1 + (onset / np.maximum(TIMES, 1e-9)) ** 1.6)
    richness = np.exp(-1.3 * tau) * (0.75 + 0.2 * delta) * np.exp(0.05 * rng.normal())
    train = 0.35 * (1 - progress) ** 2 + 2e-5
    unit = (delta + 0.02 * rng.normal(size=(TIMES.size, units)) * progress[:, None]).astype("float32")
    return {
        "step": TIMES,
        "train_loss": train,
        "test_loss": train + 0.2 * progress * (1 - 0.98 * richness) ** 3 + 1e-4,
        "kernel_distance": richness * progress,
        "hamming_distance": 0.4 * richness * progress,
        "parameter_distance": progress * (1 + 1 / (1 + np.exp(delta))),
        "parameter_distance_relative": progress * (1.2 - tau / 3 - 0.3 * delta),
        "delta_mean": unit.mean(1),
        "delta_std": unit.std(1),
        "delta_drift": 0.02 * progress,
        "delta": list(unit),
    }


def paths_of(rng, delta, units=50):
    start = rng.normal(size=(units, 2))
    start *= 0.15 / np.linalg.norm(start, axis=1, keepdims=True)
    ends = np.array([[0.2, 1.0], [-0.9, 0.3], [0.5, -0.8]])[rng.integers(0, 3, units)] * rng.uniform(0.1, 0.7, (units, 1))
    share = (1 / (1 + (500 / np.maximum(TIMES, 1e-9)) ** 1.5))[:, None, None]
    path = start + share * (ends - start) + 0.15 * delta * np.sin(np.pi * share) * ends[:, ::-1] * [1, -1]
    return [row.ravel().astype("float32") for row in path]


def results_of(protocol, directions=False):
    """Trials and curves as the records hold them."""
    trials, curves = [], []
    for place, cell in enumerate(protocol.cells()):
        tau, delta = cell.parameters.get("tau", 0.2 + 0.13 * place), cell.parameters.get("delta", np.cos(place))
        for seed in protocol.seeds:
            rng = np.random.default_rng([place, seed])
            name = f"{cell.label}-{seed}"
            curve = pd.DataFrame({"trial": name, **curve_of(tau, delta, rng)})
            curves.append(curve.assign(directions=paths_of(rng, delta) if directions else [None] * TIMES.size))
            reached = curve.loc[curve["test_loss"] < 0.035, "step"]
            trials.append(
                {
                    "trial": name,
                    "batch": f"b{seed}",
                    "role": "score",
                    "seed": seed,
                    "scheme": cell.name,
                    "parameters": canonical_json(cell.parameters),
                    "lr": 0.005,
                    "steps": STEPS,
                    "status": "finished",
                    "zero_loss": 0.35,
                    "train_loss": curve["train_loss"].iloc[-1],
                    "test_loss": curve["test_loss"].iloc[-1],
                    "sustained_reached": reached.min() if reached.size else None,
                    "measured_at": STEPS,
                    "kernel_distance": curve["kernel_distance"].iloc[-1],
                    "regime": "rich" if curve["kernel_distance"].iloc[-1] > 0.3 else "lazy",
                }
            )
    return (
        tables.to_frame(tables.to_arrow(pd.DataFrame(trials), tables.TRIALS)),
        tables.to_frame(tables.to_arrow(pd.concat(curves, ignore_index=True), tables.CURVES)),
    )


def board_of(protocol, trials):
    empty = pd.DataFrame({"wall_seconds": [], "members": []})
    return leaderboard.build(protocol, trials, empty)
