"""Fits that are over stay over: after a checkpoint, and without anybody who looks."""

import pytest
import torch
from lab import fit, networks, small_task, trainer
from test_training_agreement import CHECKS, PLAIN, hierarchy, perceptrons, uneven

from richlearn.errors import ParameterError
from richlearn.training import LossRecorder, NetworkModule, Stopping

ALWAYS = Stopping(train_loss=1e9)  # holds at the first check


def _recorder(stopping=None):
    task = hierarchy()
    return LossRecorder(task.train, task.test, CHECKS, stopping)


def test_who_has_diverged_is_known_after_a_resumption(tmp_path):
    before, after, module = _recorder(), _recorder(), uneven([0, 1], bad=[1])
    fit(uneven([0, 1], bad=[1]), 60, callbacks=[before]).save_checkpoint(tmp_path / "c.ckpt")
    trainer(120, callbacks=[after]).fit(module, ckpt_path=tmp_path / "c.ckpt", weights_only=False)
    assert after.not_finite == before.not_finite != {}


def test_a_stack_that_is_done_is_not_trained_on(tmp_path):
    recorder, module = _recorder(ALWAYS), uneven([0, 1])
    ended = fit(uneven([0, 1]), 60, callbacks=[_recorder(ALWAYS)])
    ended.save_checkpoint(tmp_path / "c.ckpt")
    again = trainer(120, callbacks=[recorder])
    again.fit(module, ckpt_path=tmp_path / "c.ckpt", weights_only=False)
    assert again.global_step == ended.global_step < 60
    assert torch.isfinite(module.evaluate(hierarchy().test)["loss"]).all()


def _alone():
    (network, *_), (member, *_) = perceptrons(task := hierarchy(), [(1.0, 1.0)])
    return NetworkModule(network, task.loss, PLAIN, member)


def test_a_network_that_is_done_is_not_trained_on(tmp_path):
    module, recorder = _alone(), _recorder(ALWAYS)
    ended = trainer(60, callbacks=[_recorder(ALWAYS)])
    ended.fit(_alone(), datamodule=hierarchy())
    ended.save_checkpoint(tmp_path / "c.ckpt")
    again = trainer(120, callbacks=[recorder])
    again.fit(module, datamodule=hierarchy(), ckpt_path=tmp_path / "c.ckpt", weights_only=False)
    assert again.global_step == ended.global_step < 60


def test_a_stack_that_has_diverged_ends_though_nobody_looks():
    module = uneven([0, 1], bad=[0, 1])
    assert fit(module, 120).global_step < 120
    assert None not in module.diverged_at


def test_a_goal_that_no_check_has_is_refused():
    task = small_task()
    module = NetworkModule(networks(1)[0], task.loss)
    recorder = LossRecorder(task.train, task.test, [0], Stopping(goals={"test_accuracy": 0.9}))
    with pytest.raises(ParameterError, match="`goals` names `test_accuracy`, which no check has; valid: test_loss, train_loss"):
        trainer(1, callbacks=[recorder]).fit(module, datamodule=task)
