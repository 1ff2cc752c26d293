"""`richlearn theory`: a calculator."""

import json

import pytest
from tiny_runs import main_with

NEURON = ["theory", "single-neuron", "--w0", "-1,0", "--beta", "0,1"]


def _json(*arguments):
    code, out, err = main_with(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


def test_a_neuron_downstream_is_delayed_rich(tmp_path):
    code, out, err = main_with(*NEURON, "--delta", "-20", "--plot", str(tmp_path / "out.png"))
    assert code == 0, err
    assert out.startswith("δ = -20 is delayed rich: ")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_a_neuron_upstream_is_lazy():
    found = _json(*NEURON, "--delta", "20")
    assert found["regime"] == "lazy"
    assert found["final_kernel_distance"] < 0.01
    assert found["final_a"] * found["final_w"][1] == pytest.approx(1.0)


def test_delta_keeps_the_function_at_the_start():
    delta = _json(*NEURON, "--delta", "-2")["delta"]
    assert delta == pytest.approx(-2.0)


def test_a_neuron_by_its_own_weights():
    found = _json("theory", "single-neuron", "--a0", "0.5", "--w0", "1,0", "--beta", "0,2", "--lr-w", "3")
    assert found["delta"] == pytest.approx(3 * 0.25 - 1)


def test_shapes():
    assert _json("theory", "shape", "6", "2", "2", "--delta", "50")["regime"] == "lazy"
    assert _json("theory", "shape", "6", "2", "2", "--delta", "-50")["regime"] == "delayed_rich"
    assert _json("theory", "shape", "2", "2", "6", "--delta", "50")["regime"] == "delayed_rich"


def test_the_distribution_of_delta():
    code, out, _ = main_with("theory", "unit-delta", "ntk", "100", "50", "1")
    assert code == 0
    assert "of the hidden units start upstream" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*NEURON], "give one of `--delta`"),
        ([*NEURON, "--delta", "1", "--a0", "1"], "give one of `--delta`"),
        (
            ["theory", "single-neuron", "--w0", "x", "--beta", "0,1", "--delta", "1"],
            "`--w0` must be numbers with commas between, such as -1,0; got `x`",
        ),
        (["theory", "single-neuron", "--w0", "1", "--beta", "0,1", "--delta", "1"], "must have the same number of values, got 1 and 2"),
        ([*NEURON, "--delta", "nan"], "`--delta` must be finite"),
        ([*NEURON, "--delta", "1", "--lr-w", "0"], "learning rates must be positive"),
        (["theory", "single-neuron", "--w0", "0,0", "--beta", "0,1", "--delta", "-1"], "leaves a = 0"),
        ([*NEURON, "--delta", "1", "--plot", "/nowhere/out.png"], "`--plot /nowhere/out.png` cannot be written"),
        (["theory", "unit-delta", "nkt", "3", "3", "3"], "unknown parametrisation `nkt`"),
        (["theory", "shape", "0", "1", "1", "--delta", "1"], "must be"),
    ],
)
def test_bad_questions(arguments, message):
    code, out, err = main_with(*arguments)
    assert (code, out) == (2, ""), err
    assert message in err
    assert "Traceback" not in err


def test_a_start_that_stays_says_so_and_is_valid_json():
    found = _json("theory", "single-neuron", "--w0", "0,0", "--beta", "1,1", "--a0", "0")
    assert (found["fit_time"], found["align_time"], found["meaning"]) == (None, None, "nothing is learned from this start")
