"""richlearn: how does initialisation decide whether a network learns features, how much data it needs, how soon it generalises?

Parts are imported when they are used, so that `import richlearn` is quick: `richlearn.run`, `richlearn.load_trials`,
`richlearn.load_curves`, and the rooms `theory`, `networks`, `tasks`, `schemes`, `kernels`, `metrics`, `training`, `figures`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from richlearn import figures, kernels, metrics, networks, schemes, tasks, theory, training
    from richlearn.report import Results, load_curves, load_trials, run

__all__ = [
    "Results",
    "figures",
    "kernels",
    "load_curves",
    "load_trials",
    "metrics",
    "networks",
    "run",
    "schemes",
    "tasks",
    "theory",
    "training",
]

_REPORT = {"Results", "load_curves", "load_trials", "run"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module `richlearn` has no attribute `{name}`")
    return getattr(importlib.import_module("richlearn.report"), name) if name in _REPORT else importlib.import_module(f"richlearn.{name}")
