"""Data-parallel training: two gloo processes give what one gives."""

import pytest
from tiny_runs import go, losses

DOUBLE = "training.precision=64-true"
SCHEMES = "schemes=[{name: standard}, {name: layer_rates, parameters: {first: 0.5, readout: 2.0}}, {name: lsuv}]"


def _agree(tmp_path, *options):
    one = losses(go(tmp_path / "one", *options).folder.path)
    two = losses(go(tmp_path / "two", *options, strategy="ddp", devices=2).folder.path)
    assert two.keys() == one.keys()
    assert all(two[key] == pytest.approx(one[key], rel=1e-10, abs=1e-10) for key in one)


def test_ddp_agrees_with_one_process_for_odd_batches(tmp_path):
    # 15 samples in batches of 7, 7 and 1: shares of 4 and 3, and of 1 and none.
    _agree(tmp_path, DOUBLE, SCHEMES, "training.batch_size=7", "seeds=0")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["{name: sgd, lr: 0.05, momentum: 0.9, weight_decay: 0.01}", "{name: adamw, lr: 0.01}"])
@pytest.mark.parametrize("size", ["null", "4", "7"])
def test_ddp_agrees_for_every_optimiser_and_batch_size(optimizer, size, tmp_path):
    _agree(tmp_path, DOUBLE, SCHEMES, f"training.batch_size={size}", f"optimizer={optimizer}")


def test_ddp_with_one_rank_is_plain_training(tmp_path):
    one = losses(go(tmp_path / "one", DOUBLE, "training.stack=1", "seeds=0").folder.path)
    alone = losses(go(tmp_path / "ddp", DOUBLE, "seeds=0", strategy="ddp", devices=1).folder.path)
    assert alone == one
