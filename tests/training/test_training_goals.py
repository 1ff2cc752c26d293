"""Members that are done: when a run stops them, what that leaves alone, and how it goes on; the schedules such runs use."""

import math
from typing import Any

import pandas as pd
import pytest
import torch
from lab import Halt, fit, networks, small_task, trainer
from lightning.pytorch.callbacks import LambdaCallback, ModelCheckpoint
from test_training_agreement import CHECKS, PLAIN, UNEVEN, alone, apart, hierarchy, perceptrons, stack, uneven

from richlearn.errors import ParameterError
from richlearn.training import LossRecorder, Member, NetworkStepsBar, Optimizer, RichnessMonitor, Schedule, Stopping

STEPS = CHECKS[-1]
FAST, SLOW = 2, 0  # of the members UNEVEN; the other three do not arrive
GOAL, LASTING = Stopping(goals={"train_accuracy": 0.9}), Stopping(goals={"train_accuracy": 0.8}, sustained=4)


class Told:
    """Stands for a bar."""

    def __init__(self, **options):
        self.options, self.updates, self.closed = options, [], False

    def update(self, n):
        self.updates.append(n)

    def close(self):
        self.closed = True


def _callbacks(stopping: Stopping | None = GOAL) -> list[Any]:
    task = hierarchy()
    monitor = RichnessMonitor(task.train.inputs[:6], [0, 20, 60, 120], details=False)
    return [LossRecorder(task.train, task.test, CHECKS, stopping), monitor]


def _names(*indices):
    return [f"α={UNEVEN[i][0]}" for i in indices]


def _state(module, index):
    return {name: value.clone() for name, value in module.member_state(index).items()}


def _same(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


def _steps(callback, index):
    return [row["step"] for row in callback.rows if row["trial"] == _names(index)[0]]


@pytest.fixture(scope="module")
def free():
    """A stack in which nobody stops, and what it recorded: (module, table)."""
    module, (recorder, _) = uneven(), _callbacks(None)
    fit(module, STEPS, callbacks=[recorder])
    return module, recorder.table()


@pytest.fixture(scope="module")
def goal():
    """The same stack with a goal: (module, recorder, monitor)."""
    module, callbacks = uneven(), _callbacks()
    fit(module, STEPS, callbacks=callbacks)
    return module, *callbacks


# ---- runs with a goal ------------------------------------------------------------------------------------------------


def test_members_stop_at_the_first_check_that_meets_the_goal(free, goal):
    met = free[1][free[1]["train_accuracy"] >= 0.9].groupby("trial")["step"].min()
    assert goal[0].stopped == met.to_dict() == {_names(FAST)[0]: met[_names(FAST)[0]], _names(SLOW)[0]: met[_names(SLOW)[0]]}
    assert met.nunique() == 2


def test_a_goal_that_must_last_stops_at_the_end_of_its_stretch(free):
    module = uneven()
    fit(module, STEPS, callbacks=_callbacks(LASTING)[:1])
    held = free[1].pivot(index="step", columns="trial", values="train_accuracy") >= 0.8
    ends = {trial: held.index[held[trial].rolling(4).sum() == 4] for trial in held}
    assert module.stopped == {trial: steps[0] for trial, steps in ends.items() if len(steps)} != {}
    assert any(step > held[trial].idxmax() + 15 for trial, step in module.stopped.items())  # one fell back first


def test_the_training_loss_is_looked_at_every_so_many_updates(free):
    module = uneven()
    fit(module, STEPS, callbacks=_callbacks(Stopping(train_loss=0.6, every=20))[:1])
    below = free[1][(free[1]["train_loss"] < 0.6) & (free[1]["step"] % 20 == 0)].groupby("trial")["step"].min()
    assert module.stopped == below.to_dict() != {}
    assert any(free[1][free[1]["train_loss"] < 0.6].groupby("trial")["step"].min() < below)


@pytest.mark.parametrize("index", [FAST, SLOW])
def test_a_network_alone_stops_at_the_same_update_with_the_same_parameters(goal, index):
    task, (recorder, _) = hierarchy(), _callbacks()
    nets, described = perceptrons(task, UNEVEN)
    found = alone(task, PLAIN, nets[index], described[index], STEPS, callbacks=[recorder])
    assert max(_steps(recorder, index)) == goal[0].stopped[_names(index)[0]] < STEPS
    assert apart(goal[0].member_state(index), found) < 1e-10


def test_a_member_that_is_done_at_the_start_is_not_trained():
    module, (recorder, _) = uneven([FAST, SLOW]), _callbacks(Stopping(train_loss=100.0))
    before = _state(module, 0)
    running = fit(module, STEPS, callbacks=[recorder])
    assert (running.global_step, module.stopped) == (0, dict.fromkeys(_names(FAST, SLOW), 0))
    assert _same(before, _state(module, 0))


def test_the_others_train_on_bit_for_bit(free, goal):
    assert all(_same(_state(free[0], index), _state(goal[0], index)) for index in (1, 3, 4))


@pytest.mark.parametrize("index", [FAST, SLOW])
def test_a_stopped_member_keeps_what_it_had(goal, index):
    shorter = uneven()
    fit(shorter, goal[0].stopped[_names(index)[0]])
    assert _same(_state(shorter, index), _state(goal[0], index))


def test_the_fit_ends_with_its_last_member(goal):
    module = uneven([FAST, SLOW])
    running = fit(module, STEPS, callbacks=_callbacks()[:1])
    assert running.global_step == module.steps_done == max(module.stopped.values()) == goal[0].stopped[_names(SLOW)[0]]


def test_a_stopped_member_is_seen_at_its_last_update_and_never_again(goal):
    module, task = uneven([FAST, SLOW]), hierarchy()
    fit(module, STEPS, callbacks=_callbacks()[:1])  # ends with the slow one: only that had the last update
    assert [view.trial for view in module.members()] == _names(SLOW)
    assert all(values.isnan().tolist() == [True, False] for values in module.evaluate(task.test).values())


def test_a_diverged_and_a_stopped_member_leave_the_others_alone(free):
    module, (recorder, _) = uneven(bad=[1]), _callbacks()
    running = fit(module, STEPS, callbacks=[recorder])
    assert running.global_step == STEPS
    assert [at is None for at in module.diverged_at] == [index != 1 for index in range(5)]
    assert list(module.stopped) == _names(SLOW, 1, FAST)
    assert all(_same(_state(free[0], index), _state(module, index)) for index in (3, 4))


def test_the_fit_ends_when_the_rest_has_diverged(goal):
    def spoil(trainer, module, *_):
        if trainer.global_step == 70:
            module.stack["layers/0/weight"].data[0] = torch.nan

    module, (recorder, _) = uneven([SLOW, FAST]), _callbacks()
    running = fit(module, STEPS, callbacks=[recorder, LambdaCallback(on_train_batch_end=spoil)])
    assert (module.diverged_at, recorder.not_finite) == ([70, None], {_names(SLOW)[0]: 75})
    assert running.global_step == 75 > module.stopped[_names(FAST)[0]] == goal[0].stopped[_names(FAST)[0]]


@pytest.mark.parametrize("count", [9, 13])  # one whole slice; two slices, of which the second is filled with copies of the last
def test_slices_end_with_their_last_members(count):
    task, times = small_task(), range(0, 400, 20)
    module = stack(task, Optimizer("sgd"), networks(count), [Member(f"t{i}", 0.3) for i in range(count)], cuts=times)
    limit = 0.95 * float(module.evaluate(task.train)["loss"].min())
    running = fit(module, 400, callbacks=[LossRecorder(task.train, task.test, times, Stopping(train_loss=limit))])
    assert len(module.stopped) == count
    assert 400 > running.global_step == max(module.stopped.values()) > min(module.stopped.values())


def test_rows_end_with_the_stop_and_agree_until_then(free, goal):
    expected = free[1][[row.step <= goal[0].stopped.get(row.trial, STEPS) for row in free[1].itertuples()]]
    pd.testing.assert_frame_equal(goal[1].table(), expected.reset_index(drop=True), check_exact=True)


@pytest.mark.parametrize(("index", "times"), [(FAST, [0, 20]), (SLOW, [0, 20, 60]), (1, [0, 20, 60, 120])])
def test_richness_is_measured_a_last_time_at_the_stop(goal, index, times):
    end = goal[0].stopped.get(_names(index)[0], STEPS)
    assert _steps(goal[2], index) == sorted({*times, end})


def test_the_last_measurement_is_that_of_the_member_at_its_stop(goal):
    end, probe = goal[0].stopped[_names(FAST)[0]], hierarchy().train.inputs[:6]
    monitor = RichnessMonitor(probe, [0, end], details=False)
    fit(uneven(), end, callbacks=[monitor])
    expected, found = ([row for row in each.rows if row["trial"] == _names(FAST)[0]][-1] for each in (monitor, goal[2]))
    assert found == expected
    assert found["kernel_distance"] > 0.01


def _goes_on(goal, path):
    """Resume in the middle; everything must come out as in the uninterrupted run."""
    module, callbacks = uneven(), _callbacks()
    again = trainer(STEPS, callbacks=callbacks)
    again.fit(module, ckpt_path=path, weights_only=False)
    assert (again.global_step, module.stopped) == (STEPS, goal[0].stopped)
    assert all(torch.equal(goal[0].stack[key], module.stack[key]) for key in module.stack)
    for found, expected in zip(callbacks, goal[1:], strict=True):
        pd.testing.assert_frame_equal(found.table(), expected.table(), check_exact=True)


@pytest.mark.parametrize("later", [-10, 0, 15])  # before, at and after the first stop
def test_a_run_goes_on_after_an_interruption(goal, tmp_path, later):
    at = goal[0].stopped[_names(FAST)[0]] + later
    fit(uneven(), STEPS, callbacks=[*_callbacks(), Halt(at, tmp_path / "c.ckpt")])
    _goes_on(goal, tmp_path / "c.ckpt")


def test_a_run_goes_on_from_lightnings_own_checkpoint(goal, tmp_path):
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=60, save_top_k=-1, filename="{step}")
    fit(uneven(), STEPS, callbacks=[*_callbacks(), saver], enable_checkpointing=True)
    _goes_on(goal, tmp_path / "step=60.ckpt")


def test_a_larger_budget_goes_on_where_a_smaller_one_ended(goal, tmp_path):
    fit(uneven(), 60, callbacks=_callbacks()).save_checkpoint(tmp_path / "c.ckpt")
    _goes_on(goal, tmp_path / "c.ckpt")


def test_a_lasting_goal_counts_checks_from_before_the_checkpoint(tmp_path):
    whole, resumed = uneven([FAST]), uneven([FAST])
    fit(whole, STEPS, callbacks=_callbacks(LASTING)[:1])
    at = whole.stopped[_names(FAST)[0]] - 5  # three of the four checks are behind it
    fit(uneven([FAST]), STEPS, callbacks=[_callbacks(LASTING)[0], Halt(at, tmp_path / "c.ckpt")])
    trainer(STEPS, callbacks=_callbacks(LASTING)[:1]).fit(resumed, ckpt_path=tmp_path / "c.ckpt", weights_only=False)
    assert resumed.stopped == whole.stopped


# ---- the rule itself -------------------------------------------------------------------------------------------------


def _checks(**columns):
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


@pytest.mark.parametrize(("loss", "done"), [(0.009, True), (0.01, False), (0.5, False)])
def test_a_training_loss_must_lie_below(loss, done):
    assert Stopping(train_loss=0.01).done(_checks(step=[7], train_loss=[loss])) is done


@pytest.mark.parametrize(("step", "done"), [(0, True), (10, True), (15, False), (20, True)])
def test_a_training_loss_counts_at_multiples_alone(step, done):
    assert Stopping(train_loss=0.01, every=10).done(_checks(step=[step], train_loss=[0.0])) is done


@pytest.mark.parametrize(("train", "test", "done"), [(0.99, 0.9, True), (1.0, 0.89, False), (0.98, 1.0, False)])
def test_goals_hold_together(train, test, done):
    both = Stopping(goals={"train_accuracy": 0.99, "test_accuracy": 0.9})
    assert both.done(_checks(step=[3], train_accuracy=[train], test_accuracy=[test])) is done


@pytest.mark.parametrize(("history", "done"), [([1, 1], False), ([0, 1, 1, 1], True), ([1, 1, 0, 1], False), ([1, 1, 1, 0], False)])
def test_a_lasting_goal_holds_in_a_row_up_to_now(history, done):
    assert Stopping(goals={"accuracy": 1.0}, sustained=3).done(_checks(accuracy=history)) is done


@pytest.mark.parametrize(("loss", "accuracy", "done"), [(0.0, 0.2, True), (0.9, 1.0, True), (0.9, 0.2, False)])
def test_loss_or_goals_suffice(loss, accuracy, done):
    either = Stopping(train_loss=0.1, goals={"test_accuracy": 0.99})
    assert either.done(_checks(step=[1], train_loss=[loss], test_accuracy=[accuracy])) is done


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "`Stopping` needs a `train_loss` or `goals`, got neither"),
        ({"goals": {}}, "`Stopping` needs a `train_loss` or `goals`, got neither"),
        ({"train_loss": 0.1, "sustained": 0}, "`sustained` must be a whole number of at least 1, got 0"),
        ({"train_loss": 0.1, "every": -2}, "`every` must be a whole number of at least 1, got -2"),
    ],
)
def test_a_rule_checks_itself(options, message):
    with pytest.raises(ParameterError, match=message):
        Stopping(**options)


# ---- schedules, and the progress bar ---------------------------------------------------------------------------------

EPOCHS, UPDATES = 250, 7
COSINE = Schedule("cosine", steps=EPOCHS * UPDATES, period=0.8, every=UPDATES)


def test_the_cosine_of_the_hierarchy_experiments_is_torchs_by_the_epoch():
    stepper = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    cosine, expected = torch.optim.lr_scheduler.CosineAnnealingLR(stepper, T_max=200), []
    for _ in range(EPOCHS):
        expected += [stepper.param_groups[0]["lr"]] * UPDATES
        stepper.step()
        cosine.step()
    assert COSINE.factors(0, EPOCHS * UPDATES).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("epoch", "factor"), [(0, 1.0), (100, 0.5), (200, 0.0), (249, 0.5 * (1 + math.cos(math.pi * 249 / 200)))])
def test_the_cosine_is_zero_at_four_fifths_and_rises_again(epoch, factor):
    assert COSINE.factor(epoch * UPDATES) == pytest.approx(factor, abs=1e-15)
    assert COSINE.factor(249 * UPDATES) == pytest.approx(0.141, abs=5e-4)


def test_the_cosine_does_not_change_within_an_epoch():
    by_epoch = COSINE.factors(0, EPOCHS * UPDATES).reshape(EPOCHS, UPDATES)
    assert (by_epoch == by_epoch[:, :1]).all()
    assert len(set(by_epoch[:201, 0])) == 201


def test_a_cosine_with_a_period_stays_where_its_length_ends():
    after = COSINE.factors(EPOCHS * UPDATES, (EPOCHS + 100) * UPDATES)
    assert after.tolist() == pytest.approx([0.5 * (1 + math.cos(math.pi / 0.8))] * len(after))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"period": 0.0}, r"`period` must be positive and `every` at least 1 update, got 0\.0 and 1"),
        ({"period": -0.8}, r"`period` must be positive and `every` at least 1 update, got -0\.8 and 1"),
        ({"period": float("nan")}, "`period` must be positive and `every` at least 1 update, got nan and 1"),
        ({"every": 0}, r"`period` must be positive and `every` at least 1 update, got 1\.0 and 0"),
        ({"steps": 0}, "schedule `cosine` needs `steps` ≥ 1, its length in updates, got 0"),
    ],
)
def test_a_cosine_checks_its_period(options, message):
    with pytest.raises(ParameterError, match=message):
        Schedule("cosine", **({"steps": 10} | options))


def test_the_bar_reaches_its_total_although_members_stop_early(monkeypatch):
    made = []
    monkeypatch.setattr("richlearn.training.progress.tqdm", lambda **options: made.append(Told(**options)) or made[-1])
    fit(uneven([FAST, SLOW]), STEPS, callbacks=[*_callbacks()[:1], NetworkStepsBar()])
    assert sum(made[0].updates) == made[0].options["total"] == 2 * STEPS
    assert made[0].closed


def test_the_bar_of_a_network_alone_counts_what_its_stop_left_undone(goal):
    task, told, (recorder, _) = hierarchy(), Told(), _callbacks()
    nets, described = perceptrons(task, UNEVEN)
    alone(task, PLAIN, nets[FAST], described[FAST], STEPS, callbacks=[recorder, NetworkStepsBar(told)])
    end = goal[0].stopped[_names(FAST)[0]]
    assert told.updates == [1] * end + [STEPS - end]
    assert not told.closed  # it is not this fit's own
