"""What the tasks draw, against formulas written out here."""

import pytest
import torch

from richlearn.errors import ParameterError
from richlearn.tasks import HALF_SSE, MSE, LinearRegression, TeacherStudent

SMALL = {"dimension": 5, "train_size": 30, "test_size": 20}


def _teacher(seed=0, dtype=torch.float64, **changes):
    return TeacherStudent(**{**SMALL, **changes}, seed=seed, dtype=dtype)


def _regression(seed=0, dtype=torch.float64, **changes):
    return LinearRegression(**{**SMALL, "outputs": 2, **changes}, seed=seed, dtype=dtype)


@pytest.mark.parametrize("part", ["train", "test"])
def test_inputs_lie_on_the_unit_sphere(part):
    inputs = getattr(_teacher(), part).inputs
    torch.testing.assert_close(inputs.norm(dim=1), torch.ones(len(inputs), dtype=torch.float64), rtol=0, atol=1e-14)


def test_inputs_are_uniform_on_the_sphere():
    inputs = _teacher(train_size=20_000).train.inputs
    torch.testing.assert_close(inputs.T @ inputs / 20_000, torch.eye(5, dtype=torch.float64) / 5, rtol=0, atol=0.01)
    assert inputs.mean(0).abs().max() < 0.02


def test_labels_are_the_teachers():
    task = _teacher()
    directions, readouts = task.teacher()
    for x, y in zip(task.train.inputs, task.train.targets, strict=True):
        by_hand = sum(float(a) * max(float(w @ x), 0.0) for w, a in zip(directions, readouts, strict=True))
        assert float(y) == pytest.approx(by_hand, abs=1e-14)


def test_the_teacher_has_unit_directions_and_readouts_of_one():
    directions, readouts = _teacher(teacher_width=40).teacher()
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(40, dtype=torch.float64))
    assert set(readouts.tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("make", [_teacher, _regression])
def test_the_seed_determines_everything(make):
    torch.manual_seed(1)
    first = make(4)
    torch.manual_seed(2)
    again, other = make(4), make(5)
    assert all(
        torch.equal(getattr(getattr(first, p), k), getattr(getattr(again, p), k)) for p in ("train", "test") for k in ("inputs", "targets")
    )
    assert not torch.equal(first.train.inputs, other.train.inputs)
    assert not torch.equal(first.test.targets, other.test.targets)


def test_drawing_leaves_the_global_stream_alone():
    state = torch.get_rng_state()
    _teacher().setup()
    _regression().setup()
    list(_teacher(batch_size=8).order())
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("make", [_teacher, _regression])
def test_sizes_of_one_part_leave_the_others_alone(make):
    small, large = make(train_size=10), make(train_size=30)
    assert torch.equal(small.test.inputs, large.test.inputs)
    assert torch.equal(small.test.targets, large.test.targets)
    assert torch.equal(make(test_size=3).train.inputs, large.train.inputs)


def test_train_and_test_are_different_draws():
    task = _teacher(train_size=20)
    assert torch.cdist(task.train.inputs, task.test.inputs).min() > 1e-3


@pytest.mark.parametrize("make", [_teacher, _regression])
def test_float32_data_are_the_rounded_float64_data(make):
    single, double = make(dtype=torch.float32), make()
    assert torch.equal(single.train.inputs, double.train.inputs.float())
    assert torch.equal(single.test.targets, double.test.targets.float())


@pytest.mark.parametrize(("train_size", "dimension"), [(5, 5), (30, 5)])
def test_whitened_inputs_are_orthonormal(train_size, dimension):
    inputs = _regression(train_size=train_size, dimension=dimension).train.inputs
    torch.testing.assert_close(inputs.T @ inputs, torch.eye(dimension, dtype=torch.float64), rtol=0, atol=1e-13)


@pytest.mark.parametrize("rank", [1, 3])
def test_low_rank_inputs_have_a_projector_for_a_covariance(rank):
    inputs = _regression(design="low_rank", rank=rank).train.inputs
    gram = inputs.T @ inputs
    torch.testing.assert_close(gram @ gram, gram, rtol=0, atol=1e-13)
    assert float(gram.trace()) == pytest.approx(rank)


def test_gaussian_inputs_have_variance_one_over_n():
    inputs = _regression(design="gaussian", train_size=4000).train.inputs
    assert float(inputs.square().sum(0).mean()) == pytest.approx(1, abs=0.05)


def test_regression_targets_are_linear_of_the_asked_norm():
    task = _regression(beta_norm=3.0)
    assert float(task.beta_star().norm()) == pytest.approx(3.0)
    torch.testing.assert_close(task.train.targets, task.train.inputs @ task.beta_star())
    torch.testing.assert_close(task.test.targets, task.test.inputs @ task.beta_star())


def test_whitened_regression_recovers_beta_star():
    task = _regression()
    torch.testing.assert_close(task.train.inputs.T @ task.train.targets, task.beta_star(), rtol=0, atol=1e-13)


def test_zero_loss_is_the_loss_of_the_zero_predictor():
    teacher, regression = _teacher(), _regression()
    assert teacher.zero_loss() == pytest.approx(sum(float(y) ** 2 for y in teacher.test.targets) / 20)
    assert regression.zero_loss() == pytest.approx(0.5 * sum(float(y) ** 2 for y in regression.test.targets.flatten()))


@pytest.mark.parametrize("loss", [MSE, HALF_SSE])
def test_weighted_samples_add_up_to_the_loss(loss):
    output, target = torch.randn(2, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = loss.weights(7, output)
    assert float((loss.per_sample(output, target) * weights).sum()) == pytest.approx(float(loss(output, target)))


def test_losses_are_what_torch_says():
    output, target = torch.randn(2, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(MSE(output, target), torch.nn.functional.mse_loss(output, target))
    torch.testing.assert_close(HALF_SSE(output, target), 0.5 * torch.nn.functional.mse_loss(output, target, reduction="sum"))


def test_a_stack_of_outputs_has_a_loss_each():
    output, target = torch.randn(4, 7, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    torch.testing.assert_close(MSE(output, target), torch.stack([MSE(one, target) for one in output]))


@pytest.mark.parametrize(
    ("task", "parameters", "message"),
    [
        (TeacherStudent, {"dimension": 0}, "`dimension` must be a whole number ≥ 1, got 0"),
        (TeacherStudent, {"teacher_width": 2.5}, r"`teacher_width` must be a whole number ≥ 1, got 2\.5"),
        (TeacherStudent, {"batch_size": 0}, "`batch_size` must be a whole number ≥ 1, got 0"),
        (LinearRegression, {"test_size": -1}, "`test_size` must be a whole number ≥ 1, got -1"),
        (LinearRegression, {"design": "whitend"}, "unknown `design` `whitend`; did you mean `whitened`?"),
        (LinearRegression, {"beta_norm": 0.0}, r"`beta_norm` must be positive, got 0\.0"),
        (LinearRegression, {"dimension": 5, "train_size": 4}, "`design` whitened of rank 5 needs .* ≥ 5, got 5 and 4"),
        (LinearRegression, {"design": "low_rank", "rank": 3}, "`design` low_rank of rank 3 needs .* ≥ 3, got 2 and 2"),
    ],
)
def test_parameters_are_checked(task, parameters, message):
    with pytest.raises(ParameterError, match=message):
        task(**parameters)
