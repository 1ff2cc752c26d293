"""Predictions against runs of the suite's training, small versions of the theory's benchmarks."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from lightning import Trainer

from richlearn.bench.leaderboard import render
from richlearn.bench.protocol import load
from richlearn.errors import NotApplicable
from richlearn.networks import Linear, TwoLayer
from richlearn.predictions import PredictionMonitor, SingleNeuronRun
from richlearn.predictions.base import errors, quantity
from richlearn.predictions.monitor import matrices, run_errors
from richlearn.report import run
from richlearn.schemes import SingleUnit
from richlearn.tasks import LinearRegression, TeacherStudent
from richlearn.training import NetworkModule, Optimizer

SHORT = ["training.compile=false", "seeds=0", "measure.points_per_decade=4"]
SMALL = {
    "single_neuron": ["training.steps=4000", "measure.check_every=4000", "optimizer.lr=1e-3", "schemes.0.grid={delta: [-2, 0, 2]}"],
    "hyperboloids": [
        "training.steps=3000",
        "measure.check_every=3000",
        "optimizer.lr=1e-3",
        "schemes.0.grid={delta: [-1, 1], angle: [-85, 0]}",
    ],
    "low_rank_bias": ["training.steps=30000", "measure.check_every=30000", "optimizer.lr=1e-3", "schemes.0.grid={delta: [-1, 0, 1]}"],
    "linear_funnels": ["training.steps=3000", "measure.check_every=3000", "optimizer.lr=2e-3", "schemes.0.grid={lam: [-1, 0, 1]}"],
    "deep_linear": [
        "training.steps=20000",
        "measure.check_every=20000",
        "optimizer.lr=1e-3",
        "variants=[{name: deep, network: {depth: 2}}]",
    ],
    "xor_partition": ["training.steps=6000", "measure.check_every=6000", "optimizer.lr=2e-4", "schemes.0.grid={delta: [-1, 0]}"],
}


@pytest.fixture(scope="module", params=SMALL)
def results(request, tmp_path_factory):
    return run(load(request.param, [*SHORT, *SMALL[request.param]]), tmp_path_factory.mktemp(request.param) / "run")


def test_training_follows_theory(results):
    trials = results.current
    assert (trials["status"] == "finished").all(), trials["reason"].tolist()
    assert trials["prediction_error"].max() < 0.02  # of the order of the steps
    assert results.protocol.name != "single_neuron" or trials["prediction_error"].min() > 0


def test_the_table_gives_the_disagreement_without_ranks(results):
    table = results.leaderboard()
    assert set(table["score"]) == {"prediction_error"}
    assert table["rank"].isna().all()
    assert table["value"].astype(float).max() < 0.02
    assert render(table).count(str(table["scheme"].iloc[0])) == min(10, len(table))


def test_records_hold_both_and_figures_are_drawn(results):
    curves = results.curves().dropna(subset=["observed"])
    assert {quantity(name) for name, _ in curves["predicted"].iloc[0]} <= {quantity(name) for name, _ in curves["observed"].iloc[0]}
    assert all(results.folder.figure(name).is_file() for name in results.protocol.figures)


def test_a_smaller_step_comes_nearer_to_theory(tmp_path):
    found = []
    for lr, steps in ((2e-3, 1000), (1e-3, 2000)):
        options = [
            *SHORT,
            f"training.steps={steps}",
            "measure.check_every=1000",
            f"optimizer.lr={lr}",
            "schemes.0.grid={delta: [-2, 0, 2]}",
        ]
        found.append(run(load("single_neuron", options), tmp_path / str(lr)).current["prediction_error"].to_numpy())
    assert found[0] / found[1] == pytest.approx(2.0, rel=0.05)  # gradient descent is of first order


def test_a_start_that_theory_does_not_cover_is_a_row_with_its_reason(tmp_path):
    options = [*SHORT, "training.steps=10", "measure.check_every=10", "schemes=[{name: standard}]", "figures=[]"]
    (row,) = (
        run(
            load(
                "linear_funnels", [*options, "variants=[]", "network.parameters.width=2", "task.parameters={dimension: 3, train_size: 3}"]
            ),
            tmp_path / "run",
        )
        .leaderboard()
        .to_dict("records")
    )
    assert row["value"].startswith("not applicable: prediction `balanced_linear`: ")


def test_the_monitor_serves_a_users_own_module_and_resumes(tmp_path):
    task = LinearRegression(beta_star=[0.0, 1.0], dtype=torch.float64)
    network = Linear(2, 1).double()
    SingleUnit(delta=-1.0, scale=0.5, angle=180).apply(network, torch.Generator())
    monitor = PredictionMonitor(SingleNeuronRun(), task.train, [0, 10, 100, 1000], lr=1e-3)
    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(
        max_steps=1000, max_epochs=-1, accelerator="cpu", callbacks=[monitor], precision="64-true", limit_val_batches=0, **off
    )
    trainer.fit(NetworkModule(network, task.loss, Optimizer(lr=1e-3)), task)
    table = monitor.table()
    assert table["step"].tolist() == [0, 10, 100, 1000]
    torch.save(monitor.state_dict(), tmp_path / "state.ckpt")  # as a checkpoint that may hold nothing but weights
    resumed = PredictionMonitor(SingleNeuronRun(), task.train, [0, 10, 100, 1000], lr=1e-3)
    resumed.load_state_dict(torch.load(tmp_path / "state.ckpt", weights_only=True))
    pd.testing.assert_frame_equal(resumed.table(), table)
    assert 0 < max(run_errors(table).values()) < 5e-3


def test_other_losses_and_networks_are_refused():
    task = TeacherStudent(dimension=3, train_size=8, test_size=8)
    with pytest.raises(NotApplicable, match="theory is of the loss ½ SSE, the task has MSE"):
        PredictionMonitor(SingleNeuronRun(), task.train, [0], lr=1.0, loss=task.loss)
    with pytest.raises(NotApplicable, match=r"theory is of networks of one matrix a layer, `TwoLayer` has `layers.0.bias`"):
        matrices(TwoLayer(2, 1, bias=True))


def test_errors_are_relative_to_the_largest_norm_of_a_quantity():
    predicted = {"w[0]": np.array([3.0, 0.0]), "w[1]": np.array([4.0, 0.0]), "S": np.array([0.0, 0.0])}
    observed = {"w[0]": np.array([3.0, 1.0]), "w[1]": np.array([4.0, 0.0]), "S": np.array([0.0, 0.5]), "extra": np.array([9.0, 9.0])}
    assert errors(observed, predicted) == {"w": pytest.approx(0.2), "S": 0.5}


def test_a_record_without_predictions_has_none_of_their_columns(finished):
    from richlearn.report import load_curves, load_trials

    assert load_curves(finished)["observed"].isna().all()
    assert load_trials(finished)["prediction_error"].isna().all()
    assert "prediction" not in json.loads(load_trials(finished)["spec"].iloc[0])
    assert isinstance(load_curves(finished), pd.DataFrame)


def test_a_diverged_run_has_no_error(tmp_path):
    options = [*SHORT, "training.steps=200", "measure.check_every=100", "optimizer.lr=50", "schemes.0.grid={delta: [1]}", "figures=[]"]
    (row,) = run(load("single_neuron", options), tmp_path / "run").leaderboard().to_dict("records")
    assert row["failed"] == 1
    assert np.isnan(row["value"])
    assert row["rank"] is None


def test_another_activation_is_a_row_with_its_reason(tmp_path):
    options = [*SHORT, "training.steps=10", "measure.check_every=10", "network.parameters={width: 4, activation: linear}", "figures=[]"]
    table = run(load("xor_partition", options), tmp_path / "run").leaderboard()
    assert table["value"].str.startswith("not applicable: `PiecewiseLinearRun` is of other functions than `TwoLayer`").all()
