"""Many optimiser updates of a slice of members in one call: compiled where a compiler exists, else eager, on a GPU as a graph."""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch._higher_order_ops.while_loop import while_loop
from torch.func import functional_call, grad, vmap

from richlearn.errors import NotApplicable
from richlearn.tasks.losses import Loss
from richlearn.training._graph import UpdateGraph
from richlearn.training.optimizers import Optimizer, Rates

_STATEFUL = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)


@cache
def compiler_available() -> bool:
    """Whether `torch.compile` can work on this machine's CPU: it needs a C++ compiler at run time, even with a filled cache."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception:
        return False
    return True


def check_stackable(network: nn.Module) -> None:
    """Raise `NotApplicable` where members could not be computed together: batch statistics, dropout, frozen parameters, several dtypes."""
    for name, module in network.named_modules():
        if isinstance(module, _STATEFUL):
            raise NotApplicable(f"`{type(network).__name__}` cannot be stacked: `{name}` ({type(module).__name__}) keeps state or draws")
    if frozen := [name for name, parameter in network.named_parameters() if not parameter.requires_grad]:
        raise NotApplicable(f"`{type(network).__name__}` cannot be stacked: `{frozen[0]}` is frozen, a stack trains every parameter")
    if len({parameter.dtype for parameter in network.parameters()}) != 1:
        raise NotApplicable(f"`{type(network).__name__}` cannot be stacked: its parameters have several dtypes")


def stacked_forward(
    template: nn.Module, parameters: dict[str, Tensor], inputs: Shaped[Tensor, "sample *input"]
) -> Float[Tensor, "member sample output"]:
    """Outputs (members, n, c) of a stack on shared inputs (n, …).

    A network may offer `stacked_forward(parameters, inputs)` of its own, a faster layout of the same function.
    """
    own: Callable | None = getattr(template, "stacked_forward", None)
    if own is not None:
        return own(parameters, inputs)
    return vmap(lambda member: functional_call(template, member, (inputs,)))(parameters)


class Burst:
    """`burst(parameters, state, rates, data, table, count, weights)` does `count` updates of a slice.

    One compilation serves every count: the loop over updates is inside, its length a tensor. Use one `Burst` for all
    slices and batches of equal shapes; those of minibatches do not depend on the size of the training set.

    Args:
        template: a network of the members' shape; its values do not matter.
        loss: of the task.
        optimizer: of the batch.
        compiled: ask for `torch.compile`; without a C++ compiler the same loop runs eagerly, which rounds differently. What is
            not compiled is recorded once and replayed on a GPU, where launching an update's operations takes longer than they do.
    """

    def __init__(self, template: nn.Module, loss: Loss, optimizer: Optimizer, *, compiled: bool) -> None:
        check_stackable(template)
        self.template, self.loss, self.optimizer = template, loss, optimizer
        self.names = [name for name, _ in template.named_parameters()]
        self.compiled = compiled and compiler_available()
        self._run = self._compile() if self.compiled else self._plain
        self._graph: UpdateGraph | None = None

    def _compile(self) -> Callable:
        import torch._inductor.config as inductor

        inductor.compile_threads = 1  # a pool of compiler processes costs more than it saves here, and outlives Ctrl-C
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
        return torch.compile(self._loop, dynamic=False, fullgraph=True)

    def _gradients(self, parameters: Sequence[Tensor], inputs: Tensor, targets: Tensor, weights: Tensor) -> list[Tensor]:
        def total(values: list[Tensor]) -> Tensor:
            output = stacked_forward(self.template, dict(zip(self.names, values, strict=True)), inputs)
            return (self.loss.per_sample(output, targets) * weights).sum()  # members are independent: one sum serves all

        return grad(total)(list(parameters))

    def _update(self, k: Tensor, parameters, state, rates: Rates, data, table: Tensor, weights: Tensor):
        def now(values: Tensor) -> Tensor:
            return values.index_select(0, k.reshape(1))[0]

        row, (inputs, targets) = now(table), data
        if weights.ndim == 2:
            inputs, targets, weights = now(inputs), now(targets), now(weights)
        gradients = self._gradients(parameters, inputs, targets, weights)
        return self.optimizer.update(parameters, gradients, state, rates, row)

    def _loop(self, parameters, state, lr, decay, eps, data, table: Tensor, count: Tensor, weights: Tensor):
        rates, split = Rates(lr, decay, eps), len(parameters)

        def unfinished(k: Tensor, *carried: Tensor) -> Tensor:
            return k < count

        def body(k: Tensor, *carried: Tensor) -> tuple[Tensor, ...]:
            new, new_state = self._update(k, carried[:split], carried[split:], rates, data, table, weights)
            return k + 1, *(value.clone() for value in (*new, *new_state))

        _, *carried = while_loop(unfinished, body, (torch.zeros_like(count), *parameters, *state))
        return carried[:split], carried[split:]

    def _eager(self, parameters, state, lr, decay, eps, data, table: Tensor, count: Tensor, weights: Tensor):
        rates = Rates(lr, decay, eps)
        for k in torch.arange(int(count), device=count.device):
            parameters, state = self._update(k, parameters, state, rates, data, table, weights)
        return parameters, state

    def _plain(self, parameters, state, lr, decay, eps, data, table: Tensor, count: Tensor, weights: Tensor):
        if table.device.type != "cuda":
            return self._eager(parameters, state, lr, decay, eps, data, table, count, weights)
        others, layers = [*lr, *decay, *eps, *data, table, weights], len(parameters)
        if self._graph is None or self._graph.likeness != UpdateGraph.describe([*parameters, *state, *others]):
            self._graph = None  # its memory serves the next one

            def update(k: Tensor, parameters: list[Tensor], state: list[Tensor], fixed: list[Tensor]):
                rates = Rates(fixed[:layers], fixed[layers : 2 * layers], fixed[2 * layers : 3 * layers])
                inputs, targets, table, weights = fixed[3 * layers :]
                return self._update(k, parameters, state, rates, (inputs, targets), table, weights)

            self._graph = UpdateGraph(update, parameters, state, others)
        return self._graph(parameters, state, others, int(count))

    @torch.no_grad()
    def __call__(
        self,
        parameters: Sequence[Tensor],
        state: Sequence[Tensor],
        rates: Rates,
        data: tuple[Tensor, Tensor],
        table: Tensor,
        count: int,
        weights: Tensor,
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """New (parameters, state) after `count` updates; the arguments are left alone.

        Args:
            parameters: P tensors (members, …), in the template's order.
            state: the optimiser's, slots·P tensors.
            data: inputs and targets, shared by the members: (n, …) of a full batch, (rows, batch, …) of minibatches.
            table: rows of `Optimizer.table`, at least `count`; equal lengths share a compilation.
            weights: of the samples, (n,) or (rows, batch); 0 pads a short batch.
        """
        length = torch.tensor(count, device=table.device)
        return self._run(
            list(parameters), list(state), list(rates.lr), list(rates.weight_decay), list(rates.eps), data, table, length, weights
        )
