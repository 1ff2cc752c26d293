"""Many small networks of one shape as one LightningModule whose parameters have a leading member dimension."""

import copy
from collections.abc import Iterable, Iterator, Sequence

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.func import stack_module_state

from richlearn.errors import NotApplicable, ParameterError, UsageError
from richlearn.tasks.base import Split
from richlearn.tasks.losses import Loss
from richlearn.tasks.order import BatchOrder
from richlearn.training.burst import Burst, stacked_forward
from richlearn.training.members import Member, View
from richlearn.training.optimizers import Optimizer, Rates
from richlearn.training.spans import Spans, span_list

# Members computed together on a CPU: more leave the cache, fewer waste the loop; eager operations cost more to start.
_WIDTHS = {True: range(4, 9), False: range(8, 13)}
_ROWS = {True: 1000, False: 250}  # longest burst of full-batch and of minibatch training: seconds at most, so that a stop is prompt
_PORTION = {"cpu": 1000, "cuda": 2**14}  # samples a slice is evaluated on at once
_GATHERED = 2**26  # most bytes of a burst's minibatches


def slice_width(count: int, compiled: bool) -> int:
    """Members computed together on a CPU: of the widths that suit the kind of burst the one that pads least, the narrower of equals.

    >>> slice_width(25, compiled=True), slice_width(25, compiled=False), slice_width(3, compiled=True)
    (5, 9, 3)
    """
    widths = _WIDTHS[compiled]
    return count if count <= widths[0] else min(widths, key=lambda width: (-count % width, width))


class _Untouched(torch.optim.Optimizer):
    """What Lightning counts updates with; the updates themselves happen in bursts."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        super().__init__(parameters, {})

    def step(self, closure=None):  # type: ignore[override]
        return None


class StackedModule(LightningModule):
    """Trains `networks` together, each as `NetworkModule` would train it alone (to rounding); one device, budget `Trainer(max_steps=…)`.

    `training_step` carries a burst of updates of every member, walked slice by slice; `trainer.global_step`, checkpoints
    and callbacks count optimiser updates of each network. A member whose parameters stop being finite is *diverged*: it
    keeps its last finite parameters of a burst's start, `diverged_at` says the update, the others go on bit for bit. A member
    that is told to `stop` keeps what it has then. On a CPU a slice ends with its last member; on an accelerator the members
    that still train are gathered anew for each burst. The fit ends when no member is left.

    Args:
        networks: of one shape, each with its own initialisation; copied.
        loss, optimizer: shared by all.
        members: name, learning rate and multipliers of each network.
        train: the training split, shared by all.
        order: which samples each update sees, shared by all.
        cuts: updates that no burst may cross, because something is measured there.
        burst: a `Burst` of the same shape from an earlier batch, so that it is not compiled again.
        compiled: ask for a compiled burst if `burst` is not given.

    Raises:
        ParameterError: unlike networks, not as many members as networks, or members of one name.
        NotApplicable: networks that keep batch statistics, draw random numbers, or differ in their buffers.
        UsageError: at fit, a Trainer without `max_steps` or with several devices.
    """

    done_steps: Tensor
    diverged: Tensor
    halted: Tensor
    inputs: Tensor
    targets: Tensor

    def __init__(
        self,
        networks: Sequence[nn.Module],
        loss: Loss,
        optimizer: Optimizer,
        members: Sequence[Member],
        train: Split,
        order: BatchOrder,
        *,
        cuts: Iterable[int] = (),
        burst: Burst | None = None,
        compiled: bool = True,
    ) -> None:
        super().__init__()
        if not networks or len(networks) != len(members):
            raise ParameterError(f"`members` must describe each of the `networks`: got {len(members)} for {len(networks)}")
        if len({tuple((name, value.shape) for name, value in network.named_parameters()) for network in networks}) > 1:
            raise ParameterError("`networks` of a stack must have parameters of the same names and shapes")
        if len({member.trial for member in members}) < len(members):
            raise ParameterError("`members` must have a `trial` name each: callbacks tell members apart by it")
        self.automatic_optimization = False
        self.burst = burst or Burst(networks[0], loss, optimizer, compiled=compiled)
        _check_alike(self.burst.template, networks)
        self.task_loss, self.optimizer, self.order = loss, optimizer, order
        self.trials, self.cuts = list(members), sorted(set(cuts))
        self._template = [copy.deepcopy(networks[0]).requires_grad_(False)]  # hidden in a list: not a submodule of the stack
        self._width = slice_width(len(networks), self.burst.compiled)
        self._register(networks, members, train)

    def _register(self, networks: Sequence[nn.Module], members: Sequence[Member], train: Split) -> None:
        """Parameters, optimiser state and rates, padded to whole slices by copies of the last member."""
        padding = -len(networks) % self._width
        stack, _ = stack_module_state([*networks, *[networks[-1]] * padding])
        described = [(m.lr or self.optimizer.lr, m.multipliers) for m in (*members, *[members[-1]] * padding)]
        self.stack = nn.ParameterDict({self._key(n): nn.Parameter(v.detach().clone(), requires_grad=False) for n, v in stack.items()})
        rates = self.optimizer.rates(stack, described)
        for index in range(len(stack)):
            for kind in ("lr", "weight_decay", "eps"):
                self.register_buffer(f"{kind}_{index}", getattr(rates, kind)[index])
        for slot in range(self.optimizer.slots * len(stack)):
            self.register_buffer(f"state_{slot}", torch.zeros_like(list(stack.values())[slot % len(stack)]))
        self.register_buffer("inputs", train.inputs, persistent=False)
        self.register_buffer("targets", train.targets, persistent=False)
        self.register_buffer("done_steps", torch.tensor(0))
        for name in ("diverged", "halted"):
            self.register_buffer(name, torch.full((len(networks) + padding,), -1))

    @staticmethod
    def _key(name: str) -> str:
        return name.replace(".", "/")

    # ---- the view that callbacks have --------------------------------------------------------------------------------

    @property
    def steps_done(self) -> int:
        """Optimiser updates that each network has had."""
        return int(self.done_steps)

    @property
    def diverged_at(self) -> list[int | None]:
        """For each member the first update after which its parameters are not finite; None while they are."""
        return [None if step < 0 else int(step) for step in self.diverged[: len(self.trials)]]

    def member_state(self, index: int) -> dict[str, Tensor]:
        """The parameters of one member by name; views into the stack."""
        return {name: self.stack[self._key(name)].data[index] for name in self.burst.names}

    @property
    def stopped(self) -> dict[str, int]:
        """The members that were told to stop, with the updates that they had had."""
        return {member.trial: int(step) for member, step in zip(self.trials, self.halted, strict=False) if step >= 0}

    def stop(self, trial: str) -> None:
        """Train a member no further."""
        index = next(i for i, member in enumerate(self.trials) if member.trial == trial)
        self.halted[index] = self.done_steps
        if index == len(self.trials) - 1:
            self.halted[index + 1 :] = self.done_steps  # its copies, which fill the last slice
        self._end_without_members()

    @property
    def _training(self) -> Tensor:
        """Which members train on, shape (members and padding,)."""
        return (self.diverged < 0) & (self.halted < 0)

    def _present(self) -> Tensor:
        """Which members had the last update, shape (members and padding,)."""
        return (self.diverged < 0) & ((self.halted < 0) | (self.halted == self.done_steps))

    def members(self) -> Iterator[View]:
        """The members that had the last update and are finite, in order; they share one network, filled anew for each."""
        network = self._template[0].to(self.device, next(iter(self.stack.values())).dtype)
        for index, (member, present) in enumerate(zip(self.trials, self._present().tolist(), strict=False)):
            if present:
                network.load_state_dict(self.member_state(index), strict=False)
                yield View(member.trial, network, member.multipliers.lr)

    @torch.no_grad()
    def evaluate(self, split: Split) -> dict[str, Tensor]:
        """The task's loss and accuracy of each member on the whole split, shape (members,), float64; nan where it trains no more."""
        first, present = next(iter(self.stack.values())), self._present()
        split = split.like(first)
        weights = self.task_loss.weights(len(split.inputs), first.double())
        right = self.task_loss.right
        found = {"loss": torch.full((len(first),), torch.nan, dtype=torch.float64, device=first.device)}
        if right is not None:
            found["accuracy"] = found["loss"].clone()
        for part in self._slices(present):
            for values in found.values():
                values[part] = 0.0
            parameters = {name: self.stack[self._key(name)].data[part] for name in self.burst.names}
            portion = _PORTION.get(first.device.type, _PORTION["cuda"])
            for start in range(0, len(split.inputs), portion):
                rows = slice(start, start + portion)
                output, targets = stacked_forward(self._template[0], parameters, split.inputs[rows]), split.targets[rows]
                found["loss"][part] += (self.task_loss.per_sample(output, targets).double() * weights[rows]).sum(-1)
                if right is not None:
                    found["accuracy"][part] += right(output, targets).double().sum(-1)  # whole numbers: exact
            if right is not None:
                found["accuracy"][part] /= len(split.inputs)
        return {name: torch.where(present, values, torch.nan)[: len(self.trials)].cpu() for name, values in found.items()}

    # ---- training ----------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Refuse Trainers that a stack cannot serve."""
        if self.trainer.max_steps < 1:
            raise UsageError("a stack counts optimiser updates: give its budget as `Trainer(max_steps=…)`")
        if self.trainer.world_size > 1:
            raise UsageError("a stack trains on one device: start one process per device, or train `NetworkModule` data-parallel")

    def on_train_start(self) -> None:
        """End at once where a checkpoint left nobody to train."""
        self._end_without_members()

    def _end_without_members(self) -> None:
        if not bool(self._training[: len(self.trials)].any()):
            self.trainer.should_stop = True

    def train_dataloader(self) -> Spans:
        """The spans of updates up to the Trainer's `max_steps`."""
        return Spans(span_list(self.trainer.max_steps, self.cuts, self._rows))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """An optimiser that only counts."""
        return _Untouched(self.stack.values())

    def training_step(self, span: tuple[int, int], batch_idx: int) -> None:
        """One burst: the updates start … stop − 1 of every member."""
        start, stop = span
        if start != self.steps_done:
            raise RuntimeError(
                f"the stack stands at update {self.steps_done}, its loader at {start}: the checkpoint was not taken between bursts"
            )
        given = self._inputs_of(start, stop)
        for part in self._slices(self._training):
            self._train_slice(part, start, stop, *given)
        self.done_steps.fill_(stop)
        self.optimizers().step()  # type: ignore[union-attr]
        # Lightning counts one update a step() call; there is no public way to say that a training_step did more.
        self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total.completed += stop - start - 1
        self._end_without_members()

    def _slices(self, wanted: Tensor) -> Iterator[slice | Tensor]:
        """What is computed together so that all `wanted` members are: slices of one width, or on an accelerator just these members."""
        if self.device.type != "cpu":
            members = len(self.trials)
            if len(index := wanted[:members].nonzero().flatten()):
                yield slice(0, members) if len(index) == members else index
            return
        for part in (slice(start, start + self._width) for start in range(0, len(wanted), self._width)):
            if bool(wanted[part].any()):
                yield part

    def _tensors(self, kind: str, part: slice | Tensor) -> list[Tensor]:
        count = len(self.burst.names) * (self.optimizer.slots if kind == "state" else 1)
        return [getattr(self, f"{kind}_{index}")[part] for index in range(count)]

    def _train_slice(
        self, part: slice | Tensor, start: int, stop: int, data: tuple[Tensor, Tensor], table: Tensor, weights: Tensor
    ) -> None:
        held = [*(self.stack[self._key(name)].data for name in self.burst.names), *self._tensors("state", slice(None))]
        values = [each[part] for each in held]
        parameters, state = values[: len(self.burst.names)], values[len(self.burst.names) :]
        rates = Rates(*(self._tensors(kind, part) for kind in ("lr", "weight_decay", "eps")))

        def run(count: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
            return self.burst(parameters, state, rates, data, table, count, weights)

        new, new_state = run(stop - start)
        training, finite = self._training[part], _finite(new)
        places = torch.arange(len(self.diverged), device=self.device)[part]
        for index in (training & ~finite).nonzero().flatten().tolist():
            self.diverged[places[index]] = start + _first_bad_update(run, index, stop - start)
        _commit(values, [*new, *new_state], training & finite)
        if isinstance(part, Tensor):
            for whole, value in zip(held, values, strict=True):
                whole[part] = value  # a gathered copy goes back

    @property
    def _rows(self) -> int:
        """The longest burst: short enough to stop soon and, of minibatches, to fit in memory."""
        if self.order.full_batch:
            return _ROWS[True]
        sample = sum(values[0].numel() * values.element_size() for values in (self.inputs, self.targets))
        return max(1, min(_ROWS[False], _GATHERED // (sample * self.order.batch_size)))

    def _inputs_of(self, start: int, stop: int) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor]:
        """Samples, schedule table and sample weights of a span; minibatches and tables padded to the fixed length of a burst."""
        first, rows = next(iter(self.stack.values())), self._rows
        table = torch.zeros(rows, 3, dtype=first.dtype, device=first.device)
        table[: stop - start] = self.optimizer.table(start, stop)
        if self.order.full_batch:
            return (self.inputs, self.targets), table, self.task_loss.weights(self.order.size, first)
        indices = torch.zeros(rows, self.order.batch_size, dtype=torch.int64)
        weights = torch.zeros(rows, self.order.batch_size, dtype=first.dtype)
        for row, step in enumerate(range(start, stop)):
            chosen = self.order.indices(step)
            indices[row, : len(chosen)] = chosen
            weights[row, : len(chosen)] = 1 / len(chosen) if self.task_loss.mean else 1.0
        indices = indices.to(first.device)
        return (self.inputs[indices], self.targets[indices]), table, weights.to(first.device)


def _check_alike(template: nn.Module, networks: Sequence[nn.Module]) -> None:
    """Raise `NotApplicable` where members differ in what a stack holds once, the buffers."""
    expected = dict(template.named_buffers())
    for network in networks:
        found = dict(network.named_buffers())
        if found.keys() != expected.keys() or not all(torch.equal(found[name], value) for name, value in expected.items()):
            raise NotApplicable(f"`{type(network).__name__}` cannot be stacked: its buffers {sorted(found)} differ from member to member")


def _finite(values: Sequence[Tensor]) -> Tensor:
    """Which members have only finite parameters, shape (members,)."""
    return torch.stack([value.isfinite().flatten(1).all(1) for value in values]).all(0)


def _first_bad_update(run, index: int, count: int) -> int:
    """The smallest number of updates, 0 included, after which member `index` is not finite, by bisection; non-finite values persist."""
    low, high = -1, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if bool(_finite(run(middle)[0])[index]) else (low, middle)
    return high


def _commit(old: Sequence[Tensor], new: Sequence[Tensor], alive: Tensor) -> None:
    """Write a finished burst into the stack; members that are not alive keep what they had."""
    everyone = bool(alive.all())
    for target, value in zip(old, new, strict=True):
        target.copy_(value if everyone else torch.where(alive.reshape(-1, *(1 for _ in value.shape[1:])), value, target))
