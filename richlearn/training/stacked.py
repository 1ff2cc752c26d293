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
_EVALUATED = 1000  # samples a slice is evaluated on at once


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
    keeps its last finite parameters of a burst's start, `diverged_at` says the update, the others go on bit for bit.

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
        self.register_buffer("diverged", torch.full((len(networks) + padding,), -1))

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

    def members(self) -> Iterator[View]:
        """The members that have not diverged, in order; they share one network, filled anew for each."""
        network = self._template[0].to(self.device, next(iter(self.stack.values())).dtype)
        for index, member in enumerate(self.trials):
            if self.diverged[index] < 0:
                network.load_state_dict(self.member_state(index), strict=False)
                yield View(member.trial, network, member.multipliers.lr)

    @torch.no_grad()
    def losses(self, split: Split) -> Tensor:
        """The task's loss of each member on the whole split, shape (members,), float64; nan for diverged members."""
        first = next(iter(self.stack.values()))
        split = split.like(first)
        inputs, targets = split.inputs, split.targets
        weights = self.task_loss.weights(len(inputs), first.double())
        total = torch.zeros(len(first), dtype=torch.float64, device=first.device)
        for part in self._slices():
            parameters = {name: self.stack[self._key(name)].data[part] for name in self.burst.names}
            for start in range(0, len(inputs), _EVALUATED):
                rows = slice(start, start + _EVALUATED)
                output = stacked_forward(self._template[0], parameters, inputs[rows])
                total[part] += (self.task_loss.per_sample(output, targets[rows]).double() * weights[rows]).sum(-1)
        return torch.where(self.diverged < 0, total, torch.nan)[: len(self.trials)].cpu()

    # ---- training ----------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Refuse Trainers that a stack cannot serve."""
        if self.trainer.max_steps < 1:
            raise UsageError("a stack counts optimiser updates: give its budget as `Trainer(max_steps=…)`")
        if self.trainer.world_size > 1:
            raise UsageError("a stack trains on one device: start one process per device, or train `NetworkModule` data-parallel")

    def train_dataloader(self) -> Spans:
        """The spans of updates up to the Trainer's `max_steps`."""
        return Spans(span_list(self.trainer.max_steps, self.cuts, _ROWS[self.order.full_batch]))

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
        for part in self._slices():
            if bool((self.diverged[part] < 0).any()):
                self._train_slice(part, start, stop)
        self.done_steps.fill_(stop)
        self.optimizers().step()  # type: ignore[union-attr]
        # Lightning counts one update a step() call; there is no public way to say that a training_step did more.
        self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress.total.completed += stop - start - 1

    def _slices(self) -> Iterator[slice]:
        total = len(self.diverged)
        width = self._width if self.device.type == "cpu" else total
        return (slice(start, start + width) for start in range(0, total, width))

    def _tensors(self, kind: str, part: slice) -> list[Tensor]:
        count = len(self.burst.names) * (self.optimizer.slots if kind == "state" else 1)
        return [getattr(self, f"{kind}_{index}")[part] for index in range(count)]

    def _train_slice(self, part: slice, start: int, stop: int) -> None:
        parameters = [self.stack[self._key(name)].data[part] for name in self.burst.names]
        state = self._tensors("state", part)
        rates = Rates(*(self._tensors(kind, part) for kind in ("lr", "weight_decay", "eps")))
        table, indices, weights = self._inputs_of(start, stop)

        def run(count: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
            return self.burst(parameters, state, rates, (self.inputs, self.targets), table, count, weights, indices)

        new, new_state = run(stop - start)
        alive = _finite(new) & (self.diverged[part] < 0)
        for index in (~alive & (self.diverged[part] < 0)).nonzero().flatten().tolist():
            self.diverged[part.start + index] = start + _first_bad_update(run, index, stop - start)
        _commit([*parameters, *state], [*new, *new_state], alive)

    def _inputs_of(self, start: int, stop: int) -> tuple[Tensor, Tensor | None, Tensor]:
        """Schedule table, sample indices and sample weights of a span, padded to the fixed length of a burst."""
        first, rows = next(iter(self.stack.values())), _ROWS[self.order.full_batch]
        table = torch.zeros(rows, 3, dtype=first.dtype, device=first.device)
        table[: stop - start] = self.optimizer.table(start, stop)
        if self.order.full_batch:
            return table, None, self.task_loss.weights(self.order.size, first)
        indices = torch.zeros(rows, self.order.batch_size, dtype=torch.int64)
        weights = torch.zeros(rows, self.order.batch_size, dtype=first.dtype)
        for row, step in enumerate(range(start, stop)):
            chosen = self.order.indices(step)
            indices[row, : len(chosen)] = chosen
            weights[row, : len(chosen)] = self.task_loss.weights(len(chosen), first).cpu()
        return table, indices.to(first.device), weights.to(first.device)


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
