"""What the scripts that compare speeds share: a bare Trainer, turns, tables, and the command line."""

import argparse
import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from lightning import Trainer
from lightning.pytorch.utilities import disable_possible_user_warnings

from richlearn.bench.execute import quiet


def trainer(steps: int, callbacks: Sequence = ()) -> Trainer:
    """A Trainer without logger, bar and checkpoints."""
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return Trainer(max_steps=steps, max_epochs=-1, accelerator="cpu", limit_val_batches=0, callbacks=list(callbacks), **off)


def in_turn(contestants: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The least time of each, all taken in turn."""
    best = dict.fromkeys(contestants, float("inf"))
    for _ in range(repeats):
        for name, measure in contestants.items():
            best[name] = min(best[name], measure())
    return best


def table(title: str, figures: Mapping[str, float], ours: str) -> None:
    """Milliseconds of each, and how many times those of `ours`."""
    print(f"\n{title}\n{'':58} {'ms':>9}  {'÷ ' + ours:>12}")
    for name, value in figures.items():
        print(f"{name:58} {value:9.4f}  {value / figures[ours]:12.2f}", flush=True)


def main(summary: str, *questions: Callable[[int], None]) -> None:
    """Answer the questions that the command line names, all by default, on one thread and without warnings."""
    named = {each.__name__: each for each in questions}
    parser = argparse.ArgumentParser(description=summary.partition("\n")[0])
    parser.add_argument("question", nargs="*", default=list(named), help=f"of {', '.join(named)}; default all")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    quiet()
    disable_possible_user_warnings()
    warnings.filterwarnings("ignore")
    for name in options.question:
        named[name](options.repeats)
