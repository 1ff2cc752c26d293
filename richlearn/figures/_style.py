"""How every picture looks: colours that colour-blind readers can tell apart, symbols, one writer of files."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, ParamSpec

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

_P = ParamSpec("_P")
_STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.labelsize": 9.5,
    "figure.titlesize": 11,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "lines.linewidth": 1.5,
    "hatch.linewidth": 0.6,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
}
# Okabe & Ito 2008, "Color universal design"; its yellow is too light for a line on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
GREY = "#8A8A8A"
_SYMBOLS = {"tau": "τ", "delta": "δ", "alpha": "α", "lam": "λ", "epsilon": "ε"}


def styled(draw: Callable[_P, Figure]) -> Callable[_P, Figure]:
    """Make `draw` use the suite's style, whatever the caller's own settings are."""

    @functools.wraps(draw)
    def drawn(*args: _P.args, **kwargs: _P.kwargs) -> Figure:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(_STYLE)  # pyright: ignore[reportArgumentType, reportCallIssue]
            return draw(*args, **kwargs)

    return drawn


def symbol(parameter: str) -> str:
    """A scheme's parameter as it is printed: `tau` is τ."""
    return _SYMBOLS.get(parameter, parameter)


def plain_logs(axis: Any) -> None:
    """Label a logarithmic axis of less than two decades at 1, 2 and 5 with plain numbers."""
    axis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def readable_logs(axis: Any) -> None:
    """Plain numbers on a logarithmic axis that spans less than two decades; its limits are set, or its data is drawn, already."""
    low, high = sorted(axis.get_view_interval())
    if high < 100 * low:
        plain_logs(axis)


def steps_axis(axes: Axes, first: float, last: float) -> None:
    """A horizontal axis of optimiser updates that shows 0 and is logarithmic from `first` on."""
    axes.set_xscale("symlog", linthresh=first, linscale=0.4)
    axes.set_xlim(0, last)
    axes.set_xlabel("optimiser updates")


def save(figure: Figure, target: Path | IO[bytes], dpi: int = 150) -> None:
    """Write `figure` as PNG; equal figures give equal bytes."""
    figure.savefig(target, dpi=dpi, format="png", metadata={"Software": None})
