"""A short run whose numbers are written down: when one changes, its part's `numerics` in the catalogue must be raised."""

from pathlib import Path

import pytest

from richlearn import catalog
from richlearn.bench.execute import Executor
from richlearn.bench.protocol import load
from richlearn.bench.trials import TrialMaker

# Scheme -> training loss, kernel distance, drift of δ after 20 minibatch updates of AdamW in float64.
GOLDEN = {
    "standard": (0.3565335363, 0.0001908901635, 0.009392610517),
    "kaiming": (1.318607726, 1.537376279e-05, 0.006802429753),
    "xavier": (0.5732710098, 3.511263542e-05, 0.009805643627),
    "orthogonal": (0.3665441556, 6.813020329e-05, 0.01132529577),
    "lsuv": (1.435726458, 1.624337706e-05, 0.005601703869),
    "ntk": (0.4796965908, 7.028987397e-06, 0.004523501162),
    "mean_field": (0.2747958773, 1.478590489e-05, 0.005270824723),
    "mup": (3.050117142, 4.770389209e-05, 0.008947174813),
    "relative_scale": (0.3472938899, 0.005635130192, 0.011328682),
    "embedding_scale": (0.2833089644, 0.0003061206021, 0.013560525),
    "overall_scale": (0.2828507966, 0.0008229423084, 0.01694535911),
    "unbalanced": (0.2536175246, 8.068765394e-09, 0.007279212611),
    "lambda_balanced": None,  # one output, six units: not applicable
    "single_unit": None,  # six units
    "isotropic": None,  # not square
    "unscaled": (0.3565335363, 0.0001908901635, 0.009392610517),
    "upstream": (0.3105750118, 0.05648032409, 0.005187298981),
    "balanced": (0.3551033357, 0.0001047217238, 0.00696935842),
    "downstream": (0.3378202679, 3.878298519e-06, 0.003538713121),
    "layer_rates": (0.3509872248, 0.0002819046098, 0.01495313091),
}
NUMERICS = {"training": 1, "measuring": 2, "teacher_student": 1, "two_layer": 1} | dict.fromkeys(GOLDEN, 1) | {"lambda_balanced": 2}


@pytest.fixture(scope="module")
def trials():
    protocol = load(Path(__file__).with_name("golden.yaml"))
    maker = TrialMaker(protocol)
    (batch,) = maker.batches(maker.trial(row, 0) for row in protocol.cells())
    return Executor((protocol.name, protocol.hash))(batch).trials.set_index("scheme")


@pytest.mark.parametrize("scheme", GOLDEN)
def test_numbers_are_those_written_down(trials, scheme):
    if GOLDEN[scheme] is None:
        assert trials.loc[scheme, "status"] == "not_applicable"
        return
    found = trials.loc[scheme, ["train_loss", "kernel_distance", "delta_drift"]].tolist()
    message = (
        "the numerics changed: raise the part's `numerics` in richlearn/catalog.py, write the new numbers here, run the leaderboards again"
    )
    assert found == pytest.approx(GOLDEN[scheme], rel=1e-6), message


def test_numbers_belong_to_the_numerics_of_the_catalogue():
    entries = catalog.SCHEMES.own | catalog.TASKS.own | catalog.NETWORKS.own
    stated = {"training": catalog.TRAINING_NUMERICS, "measuring": catalog.MEASURING_NUMERICS}
    assert {name: stated[name] if name in stated else entries[name].numerics for name in NUMERICS} == NUMERICS


def test_every_scheme_has_its_numbers():
    assert set(GOLDEN) == set(catalog.SCHEMES.own)
