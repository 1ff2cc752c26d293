"""Worker processes: what each batch comes to, whatever happens to its worker."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from workers_lab import batch, dies_at_birth, make

from richlearn.bench.workers import attempt, in_parallel


def outcomes(names, count=2, together=False, do=make, progress=lambda n: None):
    batches = [batch(name, seed) for seed, name in enumerate(names)]
    return sorted(in_parallel(batches, do, count, together=together, progress=progress), key=lambda found: found.batch.seed)


def test_every_batch_is_done_once_and_progress_is_told():
    told = []
    found = outcomes(["a", "b", "c"], progress=told.append)
    assert [each.outcome[0] for each in found] == ["a", "b", "c"]
    assert sum(told) == 15
    assert multiprocessing.active_children() == []


def test_a_killed_worker_costs_its_batch_alone():
    found = outcomes(["a", "kill", "b", "c"])
    assert [each.outcome[:1] for each in found] == ["a", "", "b", "c"]
    assert found[1].error == "worker died with exit code -9 (negative: the signal)"


def test_an_error_is_told_in_one_line_with_its_traceback():
    (found,) = outcomes(["raise"], count=1)
    assert found.error == "RuntimeError: first line"
    assert found.trace.startswith("Traceback")


def test_an_error_of_richlearns_own_needs_no_traceback():
    result = attempt(make(rank=0, bar=None), batch("refuse"))
    assert (result.error, result.trace) == ("disk full", "")


def test_an_interruption_is_no_result():
    def work(given):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attempt(work, batch("a"))


def test_workers_that_die_at_birth_fail_every_batch():
    found = outcomes(["a", "b"], count=1, do=dies_at_birth)
    assert [each.error for each in found] == ["worker died with exit code 3 (negative: the signal)"] * 2


def test_ranks_do_each_batch_together_and_know_their_places():
    found = outcomes(["a", "b"], together=True)
    assert [each.outcome for each in found] == ["a by 0, 0", "b by 0, 0"]


def test_a_rank_that_fails_takes_its_peers_along_and_the_next_batch_has_a_fresh_team():
    found = outcomes(["kill", "a"], together=True)
    assert [each.outcome for each in found] == ["", "a by 0, 0"]


def test_leaving_early_kills_what_is_at_work():
    results = in_parallel([batch("a"), batch("sleep", 1)], make, 2, together=False, progress=lambda n: None)
    assert next(results).outcome.startswith("a")
    results.close()
    assert multiprocessing.active_children() == []


def test_a_users_script_needs_no_main_guard(tmp_path):
    (script := tmp_path / "script.py").write_text(
        "from workers_lab import batch, make\nfrom richlearn.bench.workers import in_parallel\n"
        "found = in_parallel([batch('a')], make, 1, together=False, progress=print)\nprint([each.error for each in found])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    found = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    assert found.stdout.splitlines()[-1] == "['']", found.stderr
