"""What `RichnessMonitor` adds to an epoch of LeNet-5 on images of MNIST's size and number, measured at the end of every epoch.

    OMP_NUM_THREADS=1 python benchmarks/performance/monitor.py

One core, one run, CPU time of this process. Images are random numbers: their content does not change the work.
"""

import time
import warnings

import torch
from lightning import Callback, LightningModule, Trainer
from ntk import LeNet
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from richlearn.bench.execute import quiet
from richlearn.training import RichnessMonitor

IMAGES, BATCH, EPOCHS, PROBE = 60_000, 64, 3, 256


class Classifier(LightningModule):
    """A user's own module."""

    def __init__(self) -> None:
        super().__init__()
        self.network = LeNet()

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return nn.functional.cross_entropy(self.network(images), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Clock(Callback):
    """CPU time of each epoch's updates, and of `monitor` at its end."""

    def __init__(self, monitor: RichnessMonitor) -> None:
        self.monitor, self.epochs, self.visits = monitor, [], []
        visit = monitor._visit

        def timed(*given):
            start = time.process_time()
            visit(*given)
            self.visits.append(time.process_time() - start)

        monitor._visit = timed  # type: ignore[method-assign]

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self.start = time.process_time()

    def on_train_epoch_end(self, trainer, pl_module) -> None:  # runs before the monitor's
        self.epochs.append(time.process_time() - self.start)


def main() -> None:
    torch.set_num_threads(1)
    quiet()
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    images, labels = torch.randn(IMAGES, 1, 28, 28), torch.randint(10, (IMAGES,))
    for details in (True, False):
        monitor = RichnessMonitor(images[:PROBE], details=details)
        clock = Clock(monitor)
        off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        trainer = Trainer(max_epochs=EPOCHS, accelerator="cpu", callbacks=[clock, monitor], **off)
        trainer.fit(Classifier(), DataLoader(TensorDataset(images, labels), BATCH, shuffle=True))
        epoch, visit = min(clock.epochs), min(clock.visits[1:])
        name = "with details" if details else "kernel, Hamming and parameter distance, δ"
        print(f"epoch {epoch:.2f} s, monitor ({name}) {visit:.3f} s: {visit / epoch:.1%}", flush=True)


if __name__ == "__main__":
    main()
