"""What a worker does in the tests of worker processes: as told by the scheme's name, without torch."""

import os
import signal
import time

from richlearn.bench.rows import SchemeRow
from richlearn.bench.trials import Batch, Trial
from richlearn.errors import StorageError


def batch(name: str, seed: int = 0) -> Batch:
    return Batch((Trial(f'{{"name":"{name}","seed":{seed}}}', SchemeRow(name, {}), seed, 0.1, steps=1),), stacked=True)


def make(*, rank: int, bar):
    def work(given: Batch) -> str:
        name = given.trials[0].row.name
        if name == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "raise":
            raise RuntimeError("first line\nsecond line")
        if name == "refuse":
            raise StorageError("disk full")
        if name == "sleep":
            time.sleep(600)
        bar.update(5)
        return f"{name} by {rank}, {os.environ.get('LOCAL_RANK', 'alone')}"

    return work


def dies_at_birth(*, rank: int, bar):
    os._exit(3)
