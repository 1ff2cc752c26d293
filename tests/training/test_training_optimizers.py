"""Schedules, optimiser descriptions, measurement times and the progress bar."""

import math
from itertools import pairwise

import pytest
import torch
from lab import fit, members, networks, small_task, stack, trainer
from torch.optim import lr_scheduler

from richlearn.errors import ParameterError
from richlearn.networks import TwoLayer
from richlearn.schemes import Multipliers
from richlearn.training import NetworkModule, NetworkStepsBar, Optimizer, Schedule, check_times, log_times
from richlearn.training.spans import Spans, span_list
from richlearn.training.stacked import slice_width


def _torch_factors(make, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, factors = make(optimizer), []
    for _ in range(steps):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


@pytest.mark.parametrize("warmup", [0, 1, 9])
def test_warmup_is_torchs_linear_schedule(warmup):
    expected = _torch_factors(lambda o: lr_scheduler.LinearLR(o, 1 / (warmup + 1), total_iters=warmup), 20)
    if warmup == 0:
        expected = [1.0] * 20
    assert Schedule("warmup", warmup=warmup).factors(0, 20).tolist() == pytest.approx(expected)


def test_cosine_is_torchs_cosine_annealing():
    expected = _torch_factors(lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=30), 30)
    assert Schedule("cosine", steps=30).factors(0, 30).tolist() == pytest.approx(expected)


def test_cosine_stays_at_0_after_its_length():
    assert Schedule("cosine", steps=10).factors(10, 25).tolist() == pytest.approx([0.0] * 15, abs=1e-16)


def test_cosine_with_warmup_is_the_product():
    schedule = Schedule("cosine", warmup=4, steps=20)
    expected = [min(1, (s + 1) / 5) * 0.5 * (1 + math.cos(math.pi * s / 20)) for s in range(20)]
    assert schedule.factors(0, 20).tolist() == pytest.approx(expected)


def test_constant_is_one():
    assert Schedule("constant", warmup=5).factors(0, 7).tolist() == [1.0] * 7


@pytest.mark.parametrize("schedule", [Schedule(), Schedule("warmup", warmup=4), Schedule("cosine", warmup=2, steps=9)])
def test_a_stretch_of_factors_is_part_of_the_whole(schedule):
    assert schedule.factors(3, 8).tolist() == [schedule.factor(step) for step in range(3, 8)]


def test_torch_steps_the_schedule_once_an_update():
    optimizer = Optimizer("sgd", lr=0.5, schedule=Schedule("warmup", warmup=4))
    stepper = optimizer.torch_optimizer(optimizer.groups(TwoLayer(3, 1), Multipliers(lr={"layers.0.weight": 2.0})))
    scheduler = optimizer.torch_schedule(stepper)
    seen = []
    for _ in range(7):
        seen.append([group["lr"] for group in stepper.param_groups])
        stepper.step()
        scheduler.step()
    assert seen == [pytest.approx([1.0 * factor, 0.5 * factor]) for factor in optimizer.schedule.factors(0, 7)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schedule("cosin"), r"unknown schedule `cosin`; did you mean `cosine`\?"),
        (lambda: Schedule("warmup", warmup=-1), "`warmup` must be ≥ 0 updates, got -1"),
        (lambda: Schedule("cosine"), "schedule `cosine` needs `steps` ≥ 1, its length in updates, got None"),
        (lambda: Optimizer("adamW"), r"unknown optimiser `adamW`; did you mean `adam(w)?`\?"),
        (lambda: Optimizer(lr=0.0), r"`lr` must be positive, got 0\.0"),
        (lambda: Optimizer(lr=float("nan")), "`lr` must be positive, got nan"),
        (lambda: Optimizer(momentum=1.0), r"`momentum` and `betas` must lie in \[0, 1\), got 1\.0"),
        (lambda: Optimizer("adam", betas=(0.9, 1.0)), r"must lie in \[0, 1\), got 0\.0 and \(0\.9, 1\.0\)"),
        (lambda: Optimizer(weight_decay=-1.0), r"`weight_decay` must be ≥ 0 and `eps` > 0, got -1\.0"),
        (lambda: Optimizer("adam", eps=0.0), r"`eps` > 0, got 0\.0 and 0\.0"),
        (lambda: Optimizer("adamw", momentum=0.9), "`momentum` belongs to `sgd`; `adamw` has `betas`"),
    ],
)
def test_descriptions_check_themselves(make, message):
    with pytest.raises(ParameterError, match=message):
        make()


@pytest.mark.parametrize("steps", [1, 2, 7, 1000, 123_456])
@pytest.mark.parametrize("points", [1, 4, 10])
def test_log_times_have_both_ends_and_even_ratios(steps, points):
    times = log_times(steps, points)
    assert times[0] == 0
    assert times[1] == 1
    assert times[-1] == steps
    assert times == sorted(set(times))
    ratios = [b / a for a, b in pairwise(times) if a > 100]
    assert all(ratio == pytest.approx(10 ** (1 / points), rel=0.2) for ratio in ratios)


@pytest.mark.parametrize(("steps", "every"), [(10, 3), (10, 5), (10, 20), (1, 1)])
def test_check_times_are_the_multiples_and_both_ends(steps, every):
    assert check_times(steps, every) == sorted({0, steps} | {t for t in range(steps) if t % every == 0})


@pytest.mark.parametrize("cuts", [[], [0, 3, 50, 99, 100, 300], range(0, 100, 7)])
@pytest.mark.parametrize("longest", [1, 16, 1000])
def test_spans_cover_every_update_once_and_cross_no_cut(cuts, longest):
    spans = span_list(100, cuts, longest)
    assert [step for start, stop in spans for step in range(start, stop)] == list(range(100))
    assert all(stop - start <= longest for start, stop in spans)
    assert not any(start < cut < stop for cut in cuts for start, stop in spans)


def test_a_span_loader_goes_on_where_it_was():
    loader = Spans(span_list(20, [5, 9], 6))
    first = [span for _, span in zip(range(2), loader, strict=False)]
    resumed = Spans(span_list(20, [5, 9], 6))
    resumed.load_state_dict(loader.state_dict())
    assert first + list(resumed) == loader.spans
    assert list(resumed) == loader.spans
    assert len(loader) == len(loader.spans)


@pytest.mark.parametrize(("compiled", "widths"), [(True, range(4, 9)), (False, range(8, 13))])
def test_slices_pad_least_and_are_narrow_then(compiled, widths):
    for count in range(1, 200):
        width = slice_width(count, compiled=compiled)
        if count <= widths[0]:
            assert width == count
        else:
            assert width in widths
            assert (-count % width, width) == min((-count % w, w) for w in widths)


class _Told:
    """Stands for a bar."""

    def __init__(self):
        self.updates, self.closed = [], False

    def update(self, n):
        self.updates.append(n)

    def close(self):
        self.closed = True


def test_the_bar_counts_networks_times_steps():
    told = _Told()
    fit(stack(small_task(), Optimizer(), networks(3), members(3), cuts=[1, 8]), 20, callbacks=[NetworkStepsBar(told)])
    assert told.updates == [3 * 1, 3 * 7, 3 * 12]
    assert not told.closed  # it is not this fit's own


def test_the_bar_of_one_network_counts_its_steps():
    told, task = _Told(), small_task()
    running = trainer(4, callbacks=[NetworkStepsBar(told)])
    running.fit(NetworkModule(networks(1)[0]), train_dataloaders=task.train_dataloader())
    assert told.updates == [1, 1, 1, 1]


def test_a_bar_of_its_own_knows_the_total(monkeypatch):
    made = []

    class Bar(_Told):
        def __init__(self, **options):
            super().__init__()
            self.options = options
            made.append(self)

    monkeypatch.setattr("richlearn.training.progress.tqdm", Bar)
    fit(stack(small_task(), Optimizer(), networks(3), members(3), cuts=[1]), 20, callbacks=[NetworkStepsBar()])
    assert (made[0].options["total"], made[0].options["initial"], sum(made[0].updates), made[0].closed) == (60, 0, 60, True)
