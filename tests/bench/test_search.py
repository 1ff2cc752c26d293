"""The search of learning rates: which rates each round tries, and which one is found."""

import json
import math

import numpy as np
import pytest
import torch
from tiny_runs import SEARCHED, tiny

from richlearn.bench.build import network_of, task_of
from richlearn.bench.rows import SchemeRow
from richlearn.bench.search import Search, centre
from richlearn.bench.trials import TrialMaker

ROWS = [SchemeRow("standard", {}), SchemeRow("unbalanced", {"tau": 0.5})]


class Answers(dict):
    """Outcomes of every trial that is asked for, by a loss as a function of the rate."""

    def __init__(self, loss, **columns):
        super().__init__()
        self.loss, self.columns = loss, columns

    def take(self, trials):
        for trial in trials:
            self[trial.hash] = {"status": "finished", "test_loss": self.loss(trial.lr), "sustained_reached": None, **self.columns}


def search_of(*options: str, rows=ROWS[:1], middle=lambda row: (0.1, None)) -> Search:
    return Search(TrialMaker(tiny(SEARCHED, *options)), rows, middle)


def all_rounds(search: Search, loss, **columns) -> tuple[list[list[float]], Answers]:
    """The rates of each round when every trial is answered at once."""
    answers, rounds = Answers(loss, **columns), []
    for _ in range(20):
        found = list(search.rounds(answers))
        if found[-1][1]:
            break
        answers.take(found[-1][0])
        rounds.append(sorted({trial.lr for trial in found[-1][0]}))
    return rounds, answers


def parabola(best: float):
    return lambda rate: math.exp((math.log10(rate) - math.log10(best)) ** 2)


def test_the_first_round_surrounds_the_centre_by_factors_of_root_ten():
    rounds, _ = all_rounds(search_of(), parabola(0.1))
    assert rounds == [[0.0316, 0.1, 0.316]]


def test_every_rate_is_tried_on_every_seed_of_the_search():
    ((trials, complete),) = search_of().rounds({})
    assert not complete
    assert {(trial.seed, trial.role) for trial in trials} == {(100, "search"), (101, "search")}
    assert len(trials) == 6


def test_an_even_number_of_values_has_the_extra_one_above():
    ((trials, _),) = search_of("search.values=4").rounds({})
    assert sorted({trial.lr for trial in trials}) == [0.0316, 0.1, 0.316, 1.0]


@pytest.mark.parametrize(("best", "more"), [(1e6, [[1.0], [3.16]]), (1e-9, [[0.01], [0.00316]]), (0.1, [])])
def test_it_extends_while_the_best_is_at_an_edge_and_no_further_than_allowed(best, more):
    rounds, _ = all_rounds(search_of("search.max_extensions=2"), parabola(best))
    assert rounds[1:] == more


def test_the_rate_found_is_the_best_one():
    search = search_of()
    _, answers = all_rounds(search, parabola(0.9))
    assert search.found(answers) == {ROWS[0].identity: 1.0}


def test_of_equal_rates_the_smaller_is_found():
    search = search_of("search.max_extensions=0")
    _, answers = all_rounds(search, lambda rate: 1.0)
    assert search.found(answers)[ROWS[0].identity] == 0.0316


def test_where_all_diverge_it_goes_down_and_ends():
    search = search_of("search.max_extensions=2")
    rounds, answers = all_rounds(search, lambda rate: math.nan, status="diverged")
    assert rounds[1:] == [[0.01], [0.00316]]
    assert search.found(answers)[ROWS[0].identity] == 0.00316


def test_a_rate_at_which_one_seed_diverges_is_not_found():
    search = search_of("search.max_extensions=0")
    _, answers = all_rounds(search, lambda rate: 1 / rate)
    bad = next(trial for trial in next(search.rounds({}))[0] if trial.lr == 0.316)
    answers[bad.hash]["status"] = "diverged"
    assert search.found(answers)[ROWS[0].identity] == 0.1


class Times(Answers):
    """Outcomes by the step at which each seed's run sustains its goal at a rate (inf: never, nan: it diverges); a run sees no step beyond
    its own budget, and has a lower loss the longer it is.
    """

    def __init__(self, times):
        super().__init__(lambda rate: 1.0)
        self.times, self.budgets = times, {}

    def take(self, trials):
        super().take(trials)
        for trial in trials:
            step = self.times[trial.lr][trial.seed - 100]
            self.budgets[trial.lr] = trial.steps
            self[trial.hash] |= {
                "status": "diverged" if math.isnan(step) else "finished",
                "sustained_reached": int(step) if step <= trial.steps else None,
                "test_loss": math.exp(-trial.steps / trial.lr),
            }


def raced(times, *options: str):
    """The rates of each round, their budgets, and the rate found."""
    search, answers, rounds = search_of("search.objective=steps_to_goal", "training.steps=1000", *options), Times(times), []
    while not (found := list(search.rounds(answers)))[-1][1]:
        answers.take(found[-1][0])
        rounds.append(sorted({trial.lr for trial in found[-1][0]}))
    return rounds, answers.budgets, search.found(answers)[ROWS[0].identity]


NEVER = math.inf
THREE = ("search.seeds=[100, 101, 102]", "search.max_extensions=2")


def test_a_time_is_raced_from_the_middle_and_later_rates_run_until_they_are_too_late_to_win():
    times = {0.0316: (700, 800, 900), 0.1: (500, 400, 990), 0.316: (300, 200, NEVER), 1.0: (350, 100, 90), 3.16: (NEVER, NEVER, 80)}
    rounds, budgets, found = raced(times, *THREE, "goal.sustained=3")
    tail = 3 * 10  # checks in a row, ten updates apart
    assert rounds == [[0.1], [0.0316, 0.316], [1.0], [3.16]]
    assert budgets == {0.1: 1000, 0.0316: 500 + tail, 0.316: 500 + tail, 1.0: 300 + tail, 3.16: 100 + tail}
    assert found == 1.0


@pytest.mark.parametrize("seeds", [[100], [100, 101], [100, 101, 102]])
def test_a_race_finds_the_rate_that_whole_runs_find(seeds):
    """The rule by itself: the smallest median of the times, of an even number of seeds the upper one."""
    generator = np.random.default_rng(len(seeds))
    for _ in range(100):
        times = {rate: tuple(generator.choice([10, 20, 30, 500, 980, math.nan], 3)) for rate in (0.0316, 0.1, 0.316)}
        found = raced(times, f"search.seeds={seeds}", "search.max_extensions=0")[2]
        medians = {rate: np.sort(np.nan_to_num(each[: len(seeds)], nan=1000.0))[len(seeds) // 2] for rate, each in times.items()}
        if min(medians.values()) < 1000:
            assert found == min(medians, key=lambda rate: (medians[rate], rate))


def test_where_the_middle_misses_the_goal_the_others_have_the_whole_budget():
    times = {0.0316: (NEVER,) * 3, 0.1: (NEVER, 20, NEVER), 0.316: (NEVER, 900, 30)}
    _, budgets, found = raced(times, "search.seeds=[100, 101, 102]", "search.max_extensions=0")
    assert budgets == dict.fromkeys(times, 1000)
    assert found == 0.316


def test_a_cosine_looks_at_the_budget_so_that_nothing_is_raced():
    times = {0.0316: (700,) * 2, 0.1: (500,) * 2, 0.316: (300,) * 2}
    rounds, budgets, _ = raced(times, "search.max_extensions=0", "optimizer.schedule.name=cosine")
    assert rounds == [[0.0316, 0.1, 0.316]]
    assert budgets == dict.fromkeys(times, 1000)


def test_racing_rows_of_unlike_budgets_form_batches_of_their_own():
    search = search_of("search.objective=steps_to_goal", "training.steps=1000", "training.stack=8", rows=ROWS)
    answers = Answers(lambda rate: 1.0)
    answers.take(next(search.rounds({}))[0])
    for trial in next(search.rounds({}))[0]:
        answers[trial.hash]["sustained_reached"] = 100 if trial.row.name == "standard" else 200
    batches = search.maker.batches(list(search.rounds(answers))[-1][0])
    assert [(batch.seed, batch.steps, len(batch.trials)) for batch in batches] == [
        (100, 110, 2),
        (101, 110, 2),
        (100, 210, 2),
        (101, 210, 2),
    ]


def test_an_error_as_objective_may_be_zero_and_falls_back_to_the_loss():
    goal = "goal={quantity: test_accuracy, threshold: 0.9}"
    search = search_of("search.objective=test_error", "search.max_extensions=0", goal)
    _, answers = all_rounds(search, parabola(0.1), test_accuracy=1.0)
    assert search.found(answers)[ROWS[0].identity] == 0.1
    for trial in next(search.rounds({}))[0]:
        answers[trial.hash]["test_accuracy"] = {0.0316: 0.5, 0.1: 0.3, 0.316: 0.7}[trial.lr]
    assert search.found(answers)[ROWS[0].identity] == 0.316


@pytest.mark.parametrize("row", [SchemeRow("standard", {}), SchemeRow("layer_rates", {"first": 8.0, "readout": 0.25})])
def test_the_fastest_layer_learns_at_the_protocols_rate(row):
    middle, reason = centre(TrialMaker(tiny(SEARCHED, "search.centre=fastest_layer")), row)
    assert (middle, reason) == (0.05 if row.name == "standard" else 0.00625, None)


def test_biases_are_no_layer():
    network = "network={name: two_layer, parameters: {width: 4, bias: true}}"
    assert centre(TrialMaker(tiny(SEARCHED, "search.centre=fastest_layer", network)), SchemeRow("ntk", {})) == (0.05 * 4, None)


def test_a_round_depends_on_complete_rounds_alone():
    search = search_of("search.max_extensions=2", rows=ROWS)
    _, answers = all_rounds(search, parabola(1e6))
    rounds = [[trial.hash for trial in trials] for trials, _ in search.rounds(answers)]
    first, *_ = search.rounds({})
    partly = {name: answers[name] for name in (*rounds[0], *rounds[1][1:], *rounds[2])}
    again = [[trial.hash for trial in trials] for trials, _ in search.rounds(partly)]
    assert [trial.hash for trial in first[0]] == rounds[0]
    assert again == rounds[:2]


def test_rows_that_cannot_be_served_are_not_searched_and_keep_the_protocols_rate():
    search = search_of(rows=ROWS, middle=lambda row: (0.1, "too wide" if row.name == "unbalanced" else None))
    _, answers = all_rounds(search, parabola(0.1))
    assert {json.loads(trial.spec)["scheme"]["name"] for trial in next(search.rounds({}))[0]} == {"standard"}
    assert search.found(answers) == {ROWS[0].identity: 0.1, ROWS[1].identity: 0.05}


def test_rows_whose_labels_look_alike_are_told_apart():
    rows = [SchemeRow("unbalanced", {"tau": 0.5}), SchemeRow("unbalanced", {"tau": 0.50000001})]
    search = search_of(rows=rows, middle=lambda row: (row.parameters["tau"] * 2000, None))
    _, answers = all_rounds(search, parabola(1e-9))
    assert rows[0].label == rows[1].label
    assert len(search.found(answers)) == 2


@pytest.mark.parametrize("row", [SchemeRow("standard", {}), SchemeRow("layer_rates", {"readout": 0.25})])
def test_the_centre_is_one_over_the_largest_eigenvalue_of_the_kernel(row):
    maker, logs = TrialMaker(tiny(SEARCHED)), []
    for seed in (100, 101):
        spec = json.loads(maker.trial(row, seed).spec)
        task = task_of(spec)
        network, _ = network_of(spec, task)
        first, readout = network.layers[0].weight.detach().double().numpy(), network.layers[2].weight.detach().double().numpy()
        x = task.train.inputs[:8].double().numpy()
        active = (x @ first.T > 0) * 1.0
        features = np.einsum("nk,nd,k->nkd", active, x, readout[0]).reshape(8, -1)
        hidden = (x @ first.T) * active * np.sqrt(row.parameters.get("readout", 1.0))
        logs.append(-np.log(np.linalg.eigvalsh((features @ features.T + hidden @ hidden.T) / 8)[-1]))
    assert centre(maker, row) == (float(f"{np.exp(np.mean(logs)):.3g}"), None)


def test_under_adam_the_centre_is_the_protocols_rate():
    assert centre(TrialMaker(tiny(SEARCHED, "optimizer.name=adam")), ROWS[0]) == (0.05, None)


def test_the_centre_of_a_row_that_cannot_be_served_is_its_reason():
    rate, reason = centre(TrialMaker(tiny(SEARCHED, "network.parameters.width=3")), ROWS[1])
    assert rate == 0.05
    assert "needs an even width, got 3" in str(reason)


def test_a_network_without_any_gradient_has_a_centre_still(monkeypatch):
    monkeypatch.setattr("richlearn.kernels.empirical_ntk", lambda *_, **__: torch.zeros(8, 8))
    assert centre(TrialMaker(tiny(SEARCHED)), ROWS[0]) == (1e12, None)


REGRESSION = "task={name: linear_regression, parameters: {dimension: 3, outputs: 2, train_size: 12, design: gaussian}}"


@pytest.mark.parametrize("task", ["task.parameters.train_size=12", REGRESSION])
def test_the_centre_is_the_edge_of_stability_of_gradient_descent(task):
    """From the Gauss-Newton matrix of the task's own loss, built by automatic differentiation; two outputs under ½ SSE."""
    maker = TrialMaker(tiny(SEARCHED, task, "network.name=linear", "network.parameters={width: 4}", "measure.probe=12"))
    logs = []
    for seed in (100, 101):
        spec = json.loads(maker.trial(ROWS[0], seed).spec)
        task_made = task_of(spec)
        network = network_of(spec, task_made)[0].double()
        parameters, (inputs, targets) = (
            dict(network.named_parameters()),
            (task_made.train.inputs.double(), task_made.train.targets.double()),
        )
        jacobian = torch.func.jacrev(lambda p, n=network, x=inputs: torch.func.functional_call(n, p, (x,)))(parameters)
        flat = torch.cat([value.flatten(2) for value in jacobian.values()], dim=2).flatten(0, 1)
        loss = torch.func.hessian(lambda f, t=task_made, y=targets: t.loss(f.reshape(y.shape), y))(targets.flatten())
        logs.append(math.log(2 / float(torch.linalg.eigvals(loss @ flat @ flat.T).real.max())))
    assert centre(maker, ROWS[0])[0] == pytest.approx(math.exp(sum(logs) / 2), rel=6e-3)  # three digits


def test_rates_that_all_miss_the_goal_are_told_apart_by_their_loss():
    search = search_of("search.objective=steps_to_goal")
    _, answers = all_rounds(search, parabola(0.316))
    assert search.found(answers) == {ROWS[0].identity: 0.316}
