"""Carries out a plan: what is missing is trained, recorded and reported, whatever fails or is interrupted in between."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

from tqdm.auto import tqdm

from richlearn.bench import environment
from richlearn.bench.check import check_components
from richlearn.bench.folder import RunFolder
from richlearn.bench.plan import Plan, Selection, make_plan, remembered
from richlearn.bench.protocol import Protocol
from richlearn.bench.records import RecordStore
from richlearn.bench.trials import Batch, TrialMaker, rows_of
from richlearn.bench.workers import Finished, Work, attempt, in_parallel
from richlearn.errors import StorageError, UsageError


@dataclass(frozen=True)
class Settings:
    """How a run is carried out; nothing here alters a number, `strategy="ddp"` (rounding) apart.

    Attributes:
        accelerator, strategy: Lightning's flags.
        devices: worker processes (or ranks of a data-parallel fit); "auto": one a GPU, or one a CPU core and protocol thread.
        selection: which batches of the plan.
        schemes: added schemes, names or `file.py:Class`.
        fail_fast: stop at the first batch that raises.
        retry_failed: try batches again that raised in an earlier run.
        save_weights: keep the final weights of every trial.
        quiet: no progress, no lines.
    """

    accelerator: str = "auto"
    strategy: str = "auto"
    devices: str = "auto"
    selection: Selection = field(default_factory=Selection)
    schemes: tuple[str, ...] = ()
    fail_fast: bool = False
    retry_failed: bool = False
    save_weights: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "devices", str(self.devices))  # from Python it may come as a number
        if self.devices != "auto" and not (self.devices.isdecimal() and int(self.devices) >= 1):
            raise UsageError(f"`--devices {self.devices}`: expected a whole number ≥ 1, or auto")
        if self.strategy not in ("auto", "ddp"):
            raise UsageError(f"`--strategy {self.strategy}`: expected auto (batches side by side) or ddp (each trial data-parallel)")
        if self.accelerator not in ("auto", "cpu", "gpu", "cuda", "mps"):
            raise UsageError(f"`--accelerator {self.accelerator}`: expected auto, cpu, gpu, cuda or mps")
        if self.strategy == "ddp" and self.devices == "auto":
            raise UsageError("`--strategy ddp` needs `--devices N`: the number of ranks decides rounding, so it is never guessed")


def _trainer_of(protocol: tuple[str, str], settings: Settings, folder: RunFolder, command: str, *, rank: int = 0, bar=None) -> Work:
    """What a worker does with a batch: train it and publish its record. Imports torch and Lightning, once a process."""
    from richlearn.bench.execute import Executor, Hardware, quiet

    quiet()
    devices = int(settings.devices) if settings.devices != "auto" else 1
    hardware = Hardware(settings.accelerator, rank, settings.strategy, devices)
    execute = Executor(protocol, hardware, folder, bar, command, settings.save_weights)
    store = RecordStore(folder)

    def work(batch: Batch) -> str:
        record = execute(batch)
        if settings.strategy == "ddp" and rank > 0:
            return "peer"
        outcome = store.write(record)
        shutil.rmtree(folder.in_training(batch.hash), ignore_errors=True)  # its cells' runs take over
        return outcome

    return work


@dataclass(frozen=True)
class Carried:
    """What a run came to.

    Attributes:
        worked: whether anything was trained.
        failures: a headline and a line for each batch that raised or could not be written; empty: none.
    """

    worked: bool
    failures: str


@dataclass
class Runner:
    """One run of one protocol into one folder.

    Args:
        protocol: what is asked.
        folder: where records go.
        settings: how.
    """

    protocol: Protocol
    folder: RunFolder
    settings: Settings = Settings()

    @cached_property
    def store(self) -> RecordStore:
        """The records of the folder."""
        return RecordStore(self.folder)

    @cached_property
    def maker(self) -> TrialMaker:
        """Makes the protocol's trials."""
        devices = int(self.settings.devices) if self.settings.strategy == "ddp" else 1
        return TrialMaker(self.protocol, self.settings.strategy, devices)

    @cached_property
    def _groups(self):
        groups = rows_of(self.protocol, self.settings.schemes)
        seeds = {*self.protocol.seeds, *(self.protocol.search.seeds if self.protocol.search else ())}
        self.settings.selection.check([row for group in groups for row in group], seeds, self.protocol.train_sizes)
        return groups

    @cached_property
    def _centres(self):
        return remembered(self.maker)

    def plan(self, *, repair: bool = True) -> Plan:
        """The plan against what is recorded now."""
        contents = self.store.read(repair=repair)
        for problem in contents.problems:
            self._say(f"note: {problem}")
        return make_plan(self.maker, self._groups, contents.trials, self._failed(), self._centres)

    def _failed(self) -> frozenset[str]:
        """The names of batches whose failure is logged."""
        return frozenset(path.stem for path in self.folder.failures.glob("*.log")) if self.folder.failures.is_dir() else frozenset()

    def check(self) -> None:
        """Refuse arguments that a component's class refuses, all at once."""
        check_components(self.maker, [row for group in self._groups for row in group])

    def _say(self, line: str) -> None:
        if not self.settings.quiet:
            tqdm.write(line, file=sys.stderr)

    # ---- carrying it out ---------------------------------------------------------------------------------------------

    def run(self) -> "Carried":
        """Train and record all that is missing.

        Raises:
            UsageError: the folder cannot be written or belongs to another protocol, or an argument is wrong.
        """
        if not self._settled():
            self.check()
        self.folder.prepare()
        self.folder.claim(self.protocol.hash, self.protocol.resolved_yaml())
        return self._rounds()

    def _settled(self) -> bool:
        """Whether nothing is left to do, found without importing torch (a search needs it for its centres)."""
        if self.protocol.search is not None or not self.folder.records.is_dir():
            return False
        return not self.plan(repair=False).todo(retry_failed=True)

    def _rounds(self) -> "Carried":
        """Work until no selected batch is missing: a search round opens the next."""
        failures: list[Finished] = []
        tried: set[str] = set()
        plan = self.plan()
        for line in plan.stale:
            self._say(f"stale: {line}; they are computed anew, the old ones stay in the records and out of the leaderboard")
        while todo := [b for b in self.selected(plan) if b.hash not in tried]:
            self._say(self._headline(plan, todo))
            tried |= {batch.hash for batch in todo}
            failures += self._work(todo)
            if failures and self.settings.fail_fast:
                break
            plan = self.plan()
        if plan.after_search:
            self._say(
                f"{plan.after_search} scored trials wait for the search, which other shards or failed batches hold up; run again then"
            )
        failed = {planned.batch.hash for planned in plan.planned if planned.state == "failed"} - tried
        old = [batch for batch in self.settings.selection(plan.batches) if batch.hash in failed]
        failures += [Finished(batch, error="failed in an earlier run; --retry-failed tries it again") for batch in old]
        return Carried(bool(tried), self._summary(failures) if failures else "")

    def selected(self, plan: Plan) -> list[Batch]:
        """The batches of `plan` that this process shall train, in order."""
        todo = {batch.hash for batch in plan.todo(retry_failed=self.settings.retry_failed)}
        return [batch for batch in self.settings.selection(plan.batches) if batch.hash in todo]

    def _headline(self, plan: Plan, todo: Sequence[Batch]) -> str:
        trials = sum(len(batch.trials) for batch in todo)
        kind = "search trials" if todo[0].role == "search" else "trials"
        return f"{self.protocol.name}: {trials} {kind} in {len(todo)} batches to train ({plan.count('done')} batches done)"

    def _workers(self, batches: int) -> int:
        if self.settings.devices != "auto":
            return int(self.settings.devices)
        import torch

        if self.settings.accelerator != "cpu" and torch.cuda.is_available():
            return min(torch.cuda.device_count(), batches)
        return max(1, min((os.cpu_count() or 1) // self.protocol.training.threads, batches))

    def _work(self, todo: Sequence[Batch]) -> list[Finished]:
        """Train `todo`; every result is told, failures are logged and returned."""
        total = sum(len(batch.trials) * batch.steps for batch in todo)
        count, failures = self._workers(len(todo)), []
        disable = True if self.settings.quiet else None  # None: no bar where there is no terminal
        with tqdm(total=total, unit=" network-steps", unit_scale=True, dynamic_ncols=True, disable=disable) as bar:
            make = partial(_trainer_of, (self.protocol.name, self.protocol.hash), self.settings, self.folder, environment.command())
            finished = self._alone(todo, make, bar) if count == 1 else self._together(todo, make, count, bar)
            for done, result in enumerate(finished, 1):
                self._tell(result, done, len(todo))
                if result.error:
                    failures.append(result)
                    if self.settings.fail_fast:
                        break
        return failures

    @staticmethod
    def _alone(todo: Sequence[Batch], make: Callable[..., Work], bar: tqdm) -> Iterator[Finished]:
        work = make(bar=bar)
        return (attempt(work, batch) for batch in todo)

    def _together(self, todo: Sequence[Batch], make: Callable[..., Work], count: int, bar: tqdm) -> Iterator[Finished]:
        return in_parallel(todo, make, count, together=self.settings.strategy == "ddp", progress=bar.update)

    def _tell(self, result: Finished, done: int, total: int) -> None:
        batch = result.batch
        name = f"batch {done}/{total} (seed {batch.seed}, {len(batch.trials)} networks)"
        log = self.folder.failure(batch.hash)
        if not result.error:
            log.unlink(missing_ok=True)
            self._say(f"{name}: {result.outcome}" + (" (unlike an earlier record, set aside)" if result.outcome == "conflict" else ""))
            return
        self._say(f"{name} FAILED: {result.error}")
        if result.trace:
            try:
                self.folder.replace(log, f"{result.error}\n\n{result.trace}".encode())
            except StorageError as error:
                self._say(f"note: {error}")

    def _summary(self, failures: Sequence[Finished]) -> str:
        lines = [f"seed {f.batch.seed}, {len(f.batch.trials)} networks: {f.error}{self._log_of(f.batch)}" for f in failures]
        return "\n".join([f"{len(failures)} of the batches failed:", *lines])

    def _log_of(self, batch: Batch) -> str:
        log = self.folder.failure(batch.hash)
        return f" (log: {log})" if log.is_file() else ""  # errors that say all, such as a full disk, have none
