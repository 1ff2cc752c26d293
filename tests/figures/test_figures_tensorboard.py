"""What TensorBoard is given, read back with its own reader."""

import os

import numpy as np
import pytest
from synthetic_results import STEPS, TIMES, results_of
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from richlearn import figures
from richlearn.errors import StorageError, UsageError
from richlearn.figures import tensorboard
from richlearn.figures._tables import TEST_LOSS, bands, scored


def events_of(folder):
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0, "images": 0}).Reload()


@pytest.fixture
def written(grid, tmp_path):
    trials, curves = results_of(grid)
    tensorboard.write(tmp_path / "tensorboard", grid, trials, curves, {"curves": figures.curves(trials, curves, grid)})
    return grid, trials, curves, tmp_path / "tensorboard"


def test_a_run_is_a_cell(written):
    assert sorted(os.listdir(written[-1]))[:2] == ["_figures", "unbalanced_tau=0.1_delta=-1"]
    assert len(os.listdir(written[-1])) == 9 + 1


def test_scalars_are_mean_and_band_at_the_true_steps(written):
    grid, trials, curves, folder = written
    events = events_of(folder / "unbalanced_tau=0.1_delta=-1")
    expected = bands(scored(grid, trials), curves, TEST_LOSS)[0]
    for part in ("mean", "low", "high"):
        found = events.Scalars(f"test_loss/{part}")
        assert [event.step for event in found] == list(TIMES)
        np.testing.assert_allclose([event.value for event in found], expected[part], rtol=1e-6)


def test_histograms_hold_delta_of_every_unit_of_every_seed(written):
    events = events_of(written[-1] / "unbalanced_tau=0.1_delta=1")
    last = events.Histograms("delta per unit")[-1]
    assert (last.step, last.histogram_value.num) == (STEPS, 3 * 10)
    assert last.histogram_value.min == pytest.approx(1.0, abs=0.2)


def test_hparams_hold_scheme_and_parameters(written):
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    content = events_of(written[-1] / "unbalanced_tau=0.1_delta=1").SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    found = HParamsPluginData.FromString(content).session_start_info.hparams
    assert (found["scheme"].string_value, found["tau"].number_value, found["delta"].number_value) == ("unbalanced", 0.1, 1.0)
    assert "final/test_loss" in events_of(written[-1] / "unbalanced_tau=0.1_delta=1").Tags()["scalars"]


def test_pictures_have_a_run_of_their_own(written):
    assert events_of(written[-1] / "_figures").Images("curves")[0].step == STEPS


def test_writing_again_replaces_what_was_there(written):
    grid, trials, curves, folder = written
    (folder / "stale").mkdir()
    tensorboard.write(folder, grid, trials, curves, {})
    assert not (folder / "stale").exists()
    assert len(events_of(folder / "unbalanced_tau=0.1_delta=1").Scalars("test_loss/mean")) == len(TIMES)
    assert os.listdir(folder.parent) == ["tensorboard"]


def test_cells_not_yet_run_have_no_run(grid, tmp_path):
    trials, curves = results_of(grid)
    tensorboard.write(tmp_path / "tb", grid, trials[trials["parameters"].str.contains('"tau":0.1')], curves, {})
    assert len(os.listdir(tmp_path / "tb")) == 3 + 1


def test_nothing_run_leaves_nothing_behind(grid, tmp_path):
    trials, curves = results_of(grid)
    with pytest.raises(UsageError, match="`quick` has no scored trials yet"):
        tensorboard.write(tmp_path / "tb", grid, trials.iloc[:0], curves, {})
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_is_named(grid, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"TensorBoard folder `.*file/tb` cannot be written: Not a directory; free space or choose"):
        tensorboard.write(tmp_path / "file" / "tb", grid, *results_of(grid), {})
