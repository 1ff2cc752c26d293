"""How fast the grokking transformer trains, against `nn.TransformerEncoderLayer` at all positions in an ordinary loop.

    OMP_NUM_THREADS=1 python benchmarks/performance/transformer.py [minibatch|full|validated]

One core, one run, CPU time of this process (others on the machine count less), minima over repeats taken in turn; figures are
milliseconds per update of one network, float32, division modulo 97. Read ratios, not times. The peers compute the same function
(the difference is printed), as a user would write it: every position, unfused AdamW.
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from contest import in_turn, main, trainer
from lightning import Callback
from torch import Tensor, nn
from torch.nn import functional as F

from richlearn.networks import Transformer
from richlearn.seeds import generator, global_stream
from richlearn.tasks import ModularArithmetic
from richlearn.training import LossRecorder, NetworkModule, Optimizer

LR, BETAS, DECAY = 1e-3, (0.9, 0.98), 1.0
EVERY = 10  # updates between two looks at the training and the test set


class Peer(nn.Module):
    """The same network from PyTorch's own layer."""

    def __init__(self, own: Transformer) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(own.vocabulary, own.width), nn.Embedding(own.in_features, own.width)
        self.block = nn.TransformerEncoderLayer(own.width, own.heads, 4 * own.width, dropout=0.0, activation="gelu", batch_first=True)
        self.norm, self.head = nn.LayerNorm(own.width), nn.Linear(own.width, own.out_features)
        self.load_state_dict(_renamed(own))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.norm(self.block(self.tokens(tokens) + self.positions.weight)[:, -1]))


def _renamed(own: Transformer) -> dict[str, Tensor]:
    """The state of a one-block `Transformer` under the names of `Peer`."""
    state = {name: value.clone() for name, value in own.state_dict().items()}
    names = {
        "output": "self_attn.out_proj",
        "attention_norm": "norm1",
        "expand": "linear1",
        "contract": "linear2",
        "feed_forward_norm": "norm2",
    }
    found = {name: value for name, value in state.items() if not name.startswith("blocks.")}
    for kind in ("weight", "bias"):
        found[f"block.self_attn.in_proj_{kind}"] = torch.cat([state[f"blocks.0.{side}.{kind}"] for side in ("query", "key", "value")])
        found |= {f"block.{theirs}.{kind}": state[f"blocks.0.{ours}.{kind}"] for ours, theirs in names.items()}
    return found


def network(task: ModularArithmetic) -> Transformer:
    with global_stream(generator(0, "network")):
        return Transformer(task.in_features, task.out_features)


def _look(module: nn.Module, task: ModularArithmetic) -> None:
    """Loss and accuracy on both sets."""
    module.eval()
    with torch.no_grad():
        for split in (task.train, task.test):
            logits = module(split.inputs)
            F.cross_entropy(logits, split.targets).item()
            (logits.argmax(-1) == split.targets).double().mean().item()
    module.train()


def hand_loop(task: ModularArithmetic, steps: int, make: Callable[[], nn.Module], *, fused: bool, looks: bool) -> float:
    """Milliseconds per update of an ordinary training loop."""
    module = make()
    optimizer = torch.optim.AdamW(module.parameters(), lr=LR, betas=BETAS, weight_decay=DECAY, fused=fused or None)
    order = torch.cat([torch.randperm(len(task.train.inputs)) for _ in range(steps)]).split(task.batch_size or len(task.train.inputs))
    start = time.process_time()
    for step in range(steps):
        rows = order[step] if task.batch_size else slice(None)
        optimizer.zero_grad()
        F.cross_entropy(module(task.train.inputs[rows]), task.train.targets[rows]).backward()
        optimizer.step()
        if looks and (step + 1) % EVERY == 0:
            _look(module, task)
    return (time.process_time() - start) / steps * 1e3


def lightning_loop(task: ModularArithmetic, steps: int, *, looks: bool) -> float:
    """Milliseconds per update of the suite's own path: NetworkModule under a Lightning Trainer."""
    module = NetworkModule(network(task), task.loss, Optimizer("adamw", lr=LR, betas=BETAS, weight_decay=DECAY))
    callbacks: list[Callback] = [LossRecorder(task.train, task.test, range(EVERY, steps + 1, EVERY))] if looks else []
    running = trainer(steps, callbacks)
    start = time.process_time()
    running.fit(module, datamodule=task)
    return (time.process_time() - start) / steps * 1e3


def compare(title: str, task: ModularArithmetic, steps: int, repeats: int, *, looks: bool = False) -> None:
    """Time ours and the peer on one task, and print the table."""
    task.setup()
    own = network(task)
    peer = Peer(own)
    difference = float((own(task.train.inputs) - peer(task.train.inputs)).abs().max())
    theirs = "TransformerEncoderLayer, AdamW, loop"
    best = in_turn(
        {
            theirs: partial(hand_loop, task, steps, lambda: Peer(own), fused=False, looks=looks),
            "Transformer, fused AdamW, loop": partial(hand_loop, task, steps, lambda: network(task), fused=True, looks=looks),
            "Transformer, NetworkModule, Trainer": partial(lightning_loop, task, steps, looks=looks),
        },
        repeats,
    )
    print(f"\n{title} (largest difference of a logit: {difference:.1e})\n{'':40} {'ms':>9}  {'speed-up':>9}")
    for name, value in best.items():
        print(f"{name:40} {value:9.2f}  {best[theirs] / value:9.2f}", flush=True)


def minibatch(repeats: int) -> None:
    """Batch 512."""
    compare("batch 512", ModularArithmetic(batch_size=512), 200, repeats)


def full(repeats: int) -> None:
    """All 4,656 training equations."""
    compare("full batch, 4,656", ModularArithmetic(), 20, repeats)


def validated(repeats: int) -> None:
    """The same with a look at the training and the test set every 10 updates."""
    compare("full batch, both sets looked at every 10 updates", ModularArithmetic(), 2 * EVERY, repeats, looks=True)


if __name__ == "__main__":
    main(str(__doc__), minibatch, full, validated)
