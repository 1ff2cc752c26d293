"""Pictures of theory: what they refuse, and what they show of small synthetic runs."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from richlearn.errors import UsageError
from richlearn.figures import draw, dynamics, hyperboloids, neuron, partition, solutions
from richlearn.theory import SingleNeuron

STEPS = np.array([0, 1, 10, 100])
DATA = np.array([[1.0, 1.0], [-1.0, 1.0]]), np.array([[1.0], [-1.0]])


def _protocol(cells, name="single_neuron"):
    return SimpleNamespace(name=name, cells=lambda: cells, seeds=(0,), network=SimpleNamespace(parameters={}))


def _cell(**parameters):
    arguments = {name: value for name, value in parameters.items() if name != "variant"}
    return SimpleNamespace(name="single_unit", parameters=parameters, arguments=arguments)


def _tables(cells, observed, predicted=None):
    """Trials and curves in which every quantity of `observed` rises from 0 to its value."""
    from richlearn.bench.content import canonical_json

    predicted = observed if predicted is None else predicted
    rows = [{"trial": f"t{i}", "scheme": cell.name, "parameters": canonical_json(cell.parameters)} for i, cell in enumerate(cells)]
    trials = pd.DataFrame(rows).assign(role="score", seed=0, batch="b", lr=0.1, status="finished")
    curves = [
        {"trial": row["trial"], "step": step, **{name: [(key, value * step / 100) for key, value in series.items()]
         for name, series in (("observed", observed), ("predicted", predicted))}}
        for row in rows for step in STEPS
    ]  # fmt: skip
    return trials, pd.DataFrame(curves)


NEURON = {"a": 1.0, "mu": 1.0, "phi": 0.5, "S": 0.1, "w[0]": 1.0, "w[1]": -1.0}


def test_dynamics_have_a_panel_a_quantity_and_a_column_a_variant():
    cells = [_cell(variant=name, delta=delta) for name in ("narrow", "wide") for delta in (-1, 1)]
    figure = dynamics(*_tables(cells, NEURON), _protocol(cells))
    assert [axes.get_title() for axes in figure.axes] == ["narrow", "wide", "", "", "", ""]  # μ, φ, S twice
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["δ = −1", "δ = 1", "theory", "simulation"]


def test_hyperboloids_have_a_panel_a_delta():
    cells = [_cell(delta=delta, angle=angle) for delta in (-1.0, 0.0, 2.0) for angle in (0, 90)]
    assert [axes.get_title() for axes in hyperboloids(*_tables(cells, NEURON), _protocol(cells)).axes] == ["δ = −1", "δ = 0", "δ = 2"]


def test_solutions_end_where_theory_says():
    cells = [_cell(delta=1.0)]
    tables = _tables(cells, {"beta[0]": 1.0, "beta[1]": 0.4}, {"beta[0]": 1.0, "beta[1]": 0.5})
    (axes,) = solutions(*tables, _protocol(cells), (DATA[0][:1], DATA[1][:1])).axes
    crosses = [line for line in axes.lines if line.get_marker() == "X" and len(line.get_xdata())]
    assert [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in crosses] == [(1.0, 0.5)]


def test_the_partition_has_a_column_a_row_of_the_table():
    cells = [_cell(delta=delta) for delta in (-1.0, 1.0)]
    units = {f"unit[{k},{i}]": float(k + i + 1) for k in range(3) for i in range(3)}
    figure = partition(*_tables(cells, units | {"beta[0,0]": 1.0}), _protocol(cells), DATA)
    assert [axes.get_title() for axes in figure.axes] == ["δ = −1", "δ = 1", "", ""]


def test_a_neuron_is_drawn_with_its_stages():
    figure = neuron(SingleNeuron(0.25, [-2.0, 0.0], [0.0, 1.0]))
    assert len(figure.axes) == 4
    assert [text.get_text()[:4] for text in figure.legends[0].get_texts()] == ["fit ", "kern"]


@pytest.mark.parametrize(
    ("name", "cells", "observed", "message"),
    [
        ("hyperboloids", [_cell(delta=1.0)], {"sigma[0]": 1.0}, "`hyperboloids` needs the prediction single_neuron"),
        ("hyperboloids", [_cell(lam=1.0)], NEURON, "`hyperboloids` needs rows with a parameter `delta`"),
        ("solutions", [_cell(delta=1.0)], NEURON, "`solutions` needs a prediction of β"),
        ("partition", [_cell(delta=1.0)], NEURON, "`partition` needs the prediction piecewise_linear"),
    ],
)
def test_pictures_of_another_prediction_are_refused(name, cells, observed, message):
    with pytest.raises(UsageError, match=message):
        draw(name, *_tables(cells, observed), pd.DataFrame(), _protocol(cells), data=DATA)


def test_runs_without_theory_are_refused():
    trials, curves = _tables([_cell(delta=1.0)], NEURON)
    with pytest.raises(UsageError, match="`single_neuron` has no run that was compared with theory"):
        dynamics(trials, curves.assign(observed=None), _protocol([_cell(delta=1.0)]))
