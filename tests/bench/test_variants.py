"""Variants of task and network, and protocols that compare their runs with theory."""

import json

import pytest

from richlearn.bench._yaml import load as load_yaml
from richlearn.bench.protocol import load, override, parse
from richlearn.bench.trials import TrialMaker
from richlearn.errors import UsageError

PROTOCOL = """
name: shapes
task: {name: linear_regression, parameters: {design: whitened, dimension: 3, train_size: 3}}
network: {name: linear, parameters: {width: 2}}
variants:
  - {name: narrow, network: {width: 1}}
  - {name: large, task: {dimension: 4, train_size: 4, outputs: 2}}
schemes: [{name: lambda_balanced, grid: {lam: [-1, 0]}}]
seeds: 0-1
training: {steps: 200, stack: 8, compile: false, precision: 64-true}
optimizer: {lr: 0.01}
measure: {probe: 8, points_per_decade: 4, check_every: 100}
prediction: balanced_linear
scores: [prediction_error]
figures: []
"""


def _protocol(*options, text=PROTOCOL):
    source = load_yaml(text, "shapes.yaml")
    for option in options:
        source = override(source, option)
    return parse(source)


def test_every_scheme_runs_on_every_variant():
    labels = [row.label for row in _protocol().cells()]
    assert labels == [f"lambda_balanced(variant={name}, lam={lam})" for name in ("narrow", "large") for lam in (-1, 0)]


def test_a_trial_is_the_merged_content_and_not_the_variants_name():
    protocol = _protocol()
    spec = json.loads(TrialMaker(protocol).trial(protocol.cells()[2], 0).spec)
    assert spec["task"]["parameters"] == {"design": "whitened", "dimension": 4, "train_size": 4, "outputs": 2}
    assert spec["network"]["parameters"] == {"width": 2}
    assert spec["scheme"]["parameters"] == {"lam": -1}


def test_a_batch_holds_one_variant():
    maker = TrialMaker(protocol := _protocol())
    batches = maker.batches(maker.trial(row, seed) for seed in protocol.seeds for row in protocol.cells())
    assert [(batch.seed, {trial.row.parameters["variant"] for trial in batch.trials}) for batch in batches] == [
        (0, {"narrow"}), (0, {"large"}), (1, {"narrow"}), (1, {"large"}),
    ]  # fmt: skip


def test_keys_that_are_not_given_leave_the_hash_of_older_protocols_alone():
    content = load("quick").content()
    assert not {"variants", "prediction"} & content.keys()
    assert {"variants", "prediction"} <= _protocol().content().keys()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("variants=[{name: a}, {name: a}]", "expected distinct values, got a, a"),
        ("schemes.0.grid={variant: [1, 2]}", "`variant` is what the rows of `variants` are called by"),
        ("optimizer.momentum=0.9", "a prediction is one of gradient flow: expected sgd without momentum"),
        ("training.batch_size=2", "a prediction is one of gradient flow: expected sgd without momentum"),
        ("optimizer.schedule={name: cosine}", "expected `optimizer.schedule` constant"),
        ("prediction=balanced_liner", "did you mean `balanced_linear`"),
        ("prediction=null", "`prediction_error` needs a `prediction`"),
    ],
)
def test_what_cannot_be_is_refused(option, message):
    with pytest.raises(UsageError, match=message):
        _protocol(option)


def test_a_picture_of_theory_needs_a_prediction():
    with pytest.raises(UsageError, match="`dynamics` needs a `prediction`"):
        _protocol("prediction=null", "scores=[test_loss]", "figures=[dynamics]")
