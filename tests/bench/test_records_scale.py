"""Many records (fault row 30): 10,000 of them, 1% damaged, in bounded memory; the tables do not depend on the order of files."""

import multiprocessing
import resource
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from records_lab import UNFLUSHED, make, written

from richlearn.bench.folder import RunFolder
from richlearn.bench.records import RecordStore


def read_and_weigh(path: Path, answer) -> None:
    start = time.perf_counter()
    contents = RecordStore(RunFolder(path)).read(repair=False)
    seconds = time.perf_counter() - start
    answer.put((len(contents.trials), len(contents.problems), seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


@pytest.mark.slow
def test_ten_thousand_records(tmp_path):
    count = 10_000
    store = written(tmp_path, *(make(index) for index in range(count)))
    for index in range(0, count, 100):
        (store.folder.record(make(index).batch) / "trials.parquet").write_bytes(b"")
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=read_and_weigh, args=(tmp_path, answer))
    process.start()
    trials, problems, seconds, megabytes = answer.get()
    process.join()
    print(f"{count} records read in {seconds:.1f} s with {megabytes:.0f} MB")
    assert (trials, problems) == (2 * count * 99 // 100, count // 100)
    assert megabytes < 500
    backwards = replace(UNFLUSHED, listdir=lambda path: sorted((entry.name for entry in path.iterdir()), reverse=True))
    (tmp_path / "set_aside").mkdir()
    other = RecordStore(RunFolder(tmp_path, backwards)).read(repair=False)
    pd.testing.assert_frame_equal(other.trials, store.read(repair=False).trials)
