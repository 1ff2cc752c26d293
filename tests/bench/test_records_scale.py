"""Many records (fault row 30): 10,000 of them, 1% damaged, in bounded memory; the tables do not depend on the order of files."""

import multiprocessing
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from records_lab import UNFLUSHED, make, written

from richlearn.bench.folder import RunFolder
from richlearn.bench.records import RecordStore


def read_and_weigh(path: Path, answer) -> None:
    start = time.process_time()
    contents = RecordStore(RunFolder(path)).read(repair=False)
    seconds = time.process_time() - start
    # Not `ru_maxrss`, which counts the memory of the process that started this one.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    answer.put((len(contents.trials), len(contents.problems), seconds, int(peak.split()[1]) / 1024))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_ten_thousand_records(tmp_path):
    count = 10_000
    for index in range(count):
        store = written(tmp_path, make(index))
    for index in range(0, count, 100):
        (store.folder.record(make(index).batch) / "trials.parquet").write_bytes(b"")
    context = multiprocessing.get_context("spawn")
    answer = context.SimpleQueue()
    process = context.Process(target=read_and_weigh, args=(tmp_path, answer))
    process.start()
    trials, problems, seconds, megabytes = answer.get()
    process.join()
    print(f"{count} records read in {seconds:.1f} s of CPU with {megabytes:.0f} MB")
    assert (trials, problems) == (2 * count * 99 // 100, count // 100)
    assert megabytes < 500
    backwards = replace(UNFLUSHED, listdir=lambda path: sorted((entry.name for entry in path.iterdir()), reverse=True))
    (tmp_path / "set_aside").mkdir()
    other = RecordStore(RunFolder(tmp_path, backwards)).read(repair=False)
    pd.testing.assert_frame_equal(other.trials, store.read(repair=False).trials)
