"""What is wrong with a protocol: all of it at once, each with its place, what was expected, what came, and the nearest name."""

import re

import pytest

from richlearn.bench._yaml import load as load_yaml
from richlearn.bench.protocol import load, override, parse
from richlearn.errors import UsageError

BASE = """\
name: tiny
task: {name: teacher_student}
network: {name: two_layer}
schemes: [{name: unbalanced, grid: {tau: [1, 2]}}, {name: standard}]
seeds: 0-1
training: {steps: 1000}
optimizer: {lr: 1e-3}
"""


def errors(text: str) -> list[str]:
    with pytest.raises(UsageError) as caught:
        parse(load_yaml(text, "f"))
    return str(caught.value).splitlines()


def replaced(key: str, value: str) -> str:
    text = re.sub(rf"^{key}:.*$", lambda match: f"{key}: {value}", BASE, flags=re.MULTILINE)
    return text if text != BASE else BASE + f"{key}: {value}\n"


def test_all_errors_come_at_once_in_the_order_of_the_file():
    text = BASE.replace("teacher_student", "teacher_studnt").replace("standard", "standrad").replace("steps: 1000", "stepz: 1")
    assert errors(text + "name: again\nsumary: x\n") == [
        "f:2:14: `task.name`: unknown task `teacher_studnt`; did you mean `teacher_student`?",
        "f:4:59: `schemes[1].name`: unknown scheme `standrad`; did you mean `standard`?",
        "f:6:12: `training.stepz`: unknown key; did you mean `steps`?",
        "f:8:1: `name`: duplicate key; it stands at line 1 as well",
        "f:9:1: `sumary`: unknown key; did you mean `summary`?",
    ]


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("name", "bad name", "f:1:7: `name`: expected letters, digits, `-` and `_`, at most 100, got 'bad name'"),
        ("name", "../up", "f:1:7: `name`: expected letters, digits, `-` and `_`, at most 100, got '../up'"),
        ("name", "3", "f:1:7: `name`: expected text, got 3"),
        ("task", "teacher_student", "f:2:7: `task`: expected a mapping, got 'teacher_student'"),
        ("task", "{name: teacher_student, parameters: [1]}", "`task.parameters`: expected a mapping of parameter names to values, got [1]"),
        ("task", "{name: teacher_student, parameters: {a: [1, .nan]}}", "`task.parameters.a[1]`: expected a finite number, text, true"),
        ("network", "{name: two_layr}", "f:3:17: `network.name`: unknown network `two_layr`; did you mean `two_layer`?"),
        ("network", "{name: 'gone.py:Net'}", "f:3:17: `network.name`: network file `gone.py` does not exist"),
        ("schemes", "[]", "f:4:10: `schemes`: expected at least one scheme, got none"),
        ("schemes", "standard", "f:4:10: `schemes`: expected a list, got 'standard'"),
        ("schemes", "[{name: standard}, {name: standard}]", "f:4:29: `schemes[1]`: row standard stands twice"),
        ("seeds", "3-1", "f:5:8: `seeds`: expected ranges that rise, got '3-1'"),
        ("seeds", "[]", "f:5:8: `seeds`: expected at least one seed, got none"),
        ("seeds", "[1, 0-2]", "f:5:8: `seeds`: expected distinct seeds, got [1, '0-2']"),
        ("seeds", "-1", "f:5:8: `seeds`: expected seeds from 0 to 2⁶³ − 1, got -1"),
        ("seeds", "a-b", "f:5:8: `seeds`: expected seeds like 0-3 or 0,2,5-7, got 'a-b'"),
        ("seeds", "1.5", "f:5:8: `seeds`: expected seeds like 3, 0-3, 0,2,5-7 or a list of these, got 1.5"),
        ("seeds", "0-999999999999999999", "f:5:8: `seeds`: 1e+18 seeds are more than the 1,000,000 trials a protocol may have"),
        ("seeds", "0-999999", "f:4:10: `schemes`: 3e+06 trials (rows × seeds) are more than the 1,000,000 that a protocol may have"),
        ("training", "{steps: 0}", "f:6:19: `training.steps`: expected a value greater than or equal to 1, got 0"),
        ("training", "{steps: 1.5}", "f:6:19: `training.steps`: expected a whole number, got 1.5"),
        ("training", "{steps: '5'}", "f:6:19: `training.steps`: expected a whole number, got '5'"),
        ("training", "{steps: 500, stack: 0}", "`training.stack`: expected a value greater than or equal to 1, got 0"),
        ("training", "{steps: 500, compile: no}", "`training.compile`: expected true or false, got 'no'"),
        ("training", "{steps: 500, precision: 32}", "`training.precision`: expected 32-true or 64-true, got 32"),
        ("training", "{steps: 50}", "f:1:1: `measure.check_every`: expected at most `training.steps` = 50, got 100"),
        ("optimizer", "{lr: -1}", "f:7:17: `optimizer.lr`: expected a value greater than 0, got -1"),
        ("optimizer", "{lr: .inf}", "f:7:17: `optimizer.lr`: expected a finite number, got inf"),
        ("optimizer", "{lr: fast}", "f:7:17: `optimizer.lr`: expected a number, got 'fast'"),
        ("optimizer", "{lr: 1, name: adma}", "f:7:26: `optimizer.name`: expected sgd or adam or adamw, got 'adma'; did you mean `adam`?"),
        (
            "optimizer",
            "{lr: 1, name: adam, momentum: 0.9}",
            "`optimizer.momentum`: expected 0 under adam, which has `betas` instead, got 0.9",
        ),
        ("optimizer", "{lr: 1, betas: 3}", "`optimizer.betas`: expected a list, got 3"),
        ("optimizer", "{lr: 1, betas: [0.9, 2]}", "f:7:33: `optimizer.betas[1]`: expected a value less than 1, got 2"),
        ("optimizer", "{lr: 1, schedule: {warmup: 3}}", "`optimizer.schedule.warmup`: expected 0 under schedule constant, got 3"),
        ("optimizer", "{lr: 1, schedule: {name: warmup}}", "`optimizer.schedule.warmup`: expected at least 1 update under schedule warmup"),
        ("optimizer", "{lr: 1, schedule: {name: cosine, warmup: 2000}}", "warmup`: expected at most `training.steps` = 1000, got 2000"),
        ("measure", "{check_every: 5000}", "f:8:24: `measure.check_every`: expected at most `training.steps` = 1000, got 5000"),
        ("baseline", "standrad", "f:8:11: `baseline`: expected one of the rows, got 'standrad'; did you mean `standard`?"),
        ("baseline", "unbalanced", "`baseline`: expected one row, got 'unbalanced', which names 2; write for example `unbalanced(tau=1)`"),
        ("search", "{seeds: 1-3}", "f:8:17: `search.seeds`: expected seeds that the scores do not use, got 1"),
        ("search", "{steps: 1001}", "f:8:17: `search.steps`: expected at most `training.steps` = 1000, got 1001"),
        ("search", "{steps: 99, objective: steps_to_goal}", "`search.steps`: expected at least `measure.check_every` = 100, or no search"),
        ("search", "{objective: test_error}", "f:8:21: `search.objective`: test_error needs a `goal` of accuracy"),
        ("search", "{seeds: 1000-99999}", "`search`: up to 2.079e+06 search trials are more than the 1,000,000"),
        ("scores", "[]", "f:8:9: `scores`: expected at least one, got none"),
        ("scores", "[test_loss, test_loss]", "f:8:9: `scores`: expected distinct values, got test_loss, test_loss"),
        (
            "scores",
            "[test_los]",
            "f:8:10: `scores[0]`: expected test_loss or steps_to_goal or time_to_grok or time_to_train or sample_complexity or "
            "prediction_error, got 'test_los'; did you mean `test_loss`?",
        ),
        ("goal", "{quantity: loss}", "`goal.quantity`: expected test_loss or train_loss or test_accuracy or train_accuracy, got 'loss'"),
        ("figures", "[curves, trajectories]", "f:8:19: `figures[1]`: `trajectories` needs `measure.directions: true`"),
        ("steps", "10", "f:8:1: `steps`: unknown key; did you mean `training.steps`?"),
        ("qqq", "10", "f:8:1: `qqq`: unknown key; valid: baseline, figure, figures, goal"),
    ],
)
def test_a_wrong_value(key, value, error):
    [line] = errors(replaced(key, value))
    assert error in line


@pytest.mark.parametrize(
    ("axis", "error"),
    [
        ("[]", "`schemes[0].grid.tau`: expected a list of values, {logspace: [first, last, count]} or {linspace: …}, got []"),
        ("{logspce: [1, 2, 3]}", "`schemes[0].grid.tau`: expected a list of values"),
        ("[1, 1.0]", "`schemes[0].grid.tau`: expected distinct values, got [1, 1.0]"),
        ("[.nan]", "`schemes[0].grid.tau[0]`: expected a finite number"),
        ("{logspace: [1, 2]}", "`schemes[0].grid.tau.logspace`: expected [first value, last value, count], got [1, 2]"),
        ("{linspace: [a, 2, 3]}", "`schemes[0].grid.tau.linspace`: expected [first value, last value, count], got ['a', 2, 3]"),
        (
            "{logspace: [0, 2, 3]}",
            "`schemes[0].grid.tau.logspace`: expected positive ends (the values themselves, not exponents), got [0, 2, 3]",
        ),
        ("{logspace: [1, 2, 1]}", "`schemes[0].grid.tau.logspace[2]`: expected a whole count of at least 2, got 1"),
        ("{linspace: [1, 2, 2.5]}", "`schemes[0].grid.tau.linspace[2]`: expected a whole count of at least 2, got 2.5"),
        ("{linspace: [1, 2, 1000000000]}", "`schemes[0].grid.tau.linspace[2]`: expected at most 20,000 values on an axis, got 1000000000"),
        ("[1.5, " + "9" * 400 + "]", "`schemes[0].grid.tau[1]`: expected a finite number"),
        ("{linspace: [1, " + "9" * 400 + ", 3]}", "`schemes[0].grid.tau.linspace`: expected [first value, last value, count]"),
        (
            "{linspace: [-1.7e308, 1.7e308, 2]}" + "".join(f", a{i}: [1, 2]" for i in range(1100)),
            "`schemes`: over 1e+300 rows are more than",
        ),
        ("{linspace: [1, 1, 3]}", "`schemes[0].grid.tau`: expected distinct values"),
        ("{linspace: [1, 2, 20000]}, delta: {linspace: [0, 1, 20000]}", "`schemes`: 4e+08 rows are more than the 20,000"),
    ],
)
def test_a_wrong_axis(axis, error):
    [line] = errors(BASE.replace("tau: [1, 2]", f"tau: {axis}"))
    assert error in line


def test_a_parameter_is_given_once():
    [line] = errors(BASE.replace("grid:", "parameters: {tau: 1}, grid:"))
    assert "`schemes[0].grid.tau`: `tau` stands in `parameters` too; give it once" in line


def test_a_rate_rule_needs_its_parameter():
    [line] = errors(BASE.replace("tau", "delta").replace("lr: 1e-3", "lr: 1e-3, lr_rule: inverse_tau_squared"))
    assert line == "f:7:32: `optimizer.lr_rule`: expected constant where no row has a parameter `tau`, got inverse_tau_squared"


@pytest.mark.parametrize("text", ["", "[1]", "just text"])
def test_a_file_that_is_no_mapping(text):
    assert errors(text)[0].endswith(f"`the protocol`: expected a mapping, got {load_yaml(text, 'f').data!r}")


def test_an_unreadable_value_is_reported_once():
    [line] = errors(BASE + "goal: !!python/name:os.system x\n")
    assert line.startswith("f:8:7: `goal`: tag `!!python/name:os.system` is not allowed")


def test_names_without_a_near_one_list_the_valid_ones():
    [line] = errors(replaced("task", "{name: qqqq}"))
    assert line.endswith("unknown task `qqqq`; valid: linear_regression, modular_arithmetic, random_hierarchy, teacher_student, xor")


@pytest.mark.parametrize(
    ("option", "error"),
    [
        ("training.steps", "--set training.steps: expected key=value, such as training.steps=100"),
        ("=3", "--set =3: expected key=value"),
        ("training.stepz=100", "--set training.stepz=100: `training.stepz`: unknown key; did you mean `steps`?"),
        ("training.steps=0", "--set training.steps=0: `training.steps`: expected a value greater than or equal to 1, got 0"),
        ("training.steps=[", "--set training.steps=\\[:1:2: while parsing a flow node"),
        ("goal={a: 1, a: 2}", "--set goal={a: 1, a: 2}: `a`: duplicate key"),
        ("schemes.4.name=standard", r"--set schemes.4.name=standard: `schemes\[4\].name` is not there; a list takes the number"),
        ("schemes.name=standard", "--set schemes.name=standard: `schemes.name` is not there"),
    ],
)
def test_a_wrong_override_is_named(option, error):
    with pytest.raises(UsageError, match=error.replace("?", r"\?")):
        parse(override(load_yaml(BASE, "f"), option))


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"there is no protocol file `.*gone.yaml`"):
        load(tmp_path / "gone.yaml")


def test_very_many_errors_are_counted():
    found = errors(BASE + "".join(f"key{index}: 1\n" for index in range(80)))
    assert len(found) == 51
    assert found[0].startswith("f:8:1: `key0`: unknown key")
    assert found[-1] == "f: and 30 more"
