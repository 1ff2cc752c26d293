"""RichnessMonitor and LossRecorder on one network, a stack, and a user's own LightningModule."""

import copy
import warnings
from inspect import unwrap

import pandas as pd
import pytest
import torch
from lab import members, networks, small_task, stack, trainer
from lightning import LightningModule
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn
from torchvision.models import resnet18

from richlearn.conservation import find_laws
from richlearn.errors import NotApplicable, ParameterError
from richlearn.kernels import empirical_ntk, kernel_alignment
from richlearn.metrics import ActivationHammingDistance, ConservationLaws, ConservedQuantity, KernelDistance, ParameterDistance, conserved
from richlearn.training import LossRecorder, Member, NetworkModule, Optimizer, RichnessMonitor
from richlearn.training.members import views
from richlearn.training.monitor import _directions

SGD = Optimizer("sgd", lr=0.3)
PROBE = torch.randn(12, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
QUANTITIES = ["kernel_distance", "hamming_distance", "parameter_distance", "parameter_distance_relative", "delta_drift"]

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:The number of training batches")


class Own(LightningModule):
    """A user's own module, which knows nothing of richlearn."""

    def __init__(self, network):
        super().__init__()
        self.model = network

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        return nn.functional.mse_loss(self.model(inputs), targets)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.3)


class Grouped(Own):
    """A user's own module with a learning rate for each layer, `warm` with a warm-up from 0."""

    def __init__(self, network, *rates, warm=False):
        super().__init__(network)
        self.rates, self.warm = rates, warm

    def configure_optimizers(self):
        layers = [layer for layer in self.model.modules() if isinstance(layer, nn.Linear)]
        groups = [{"params": layer.parameters(), "lr": rate} for layer, rate in zip(layers, self.rates, strict=False)]
        optimizer = torch.optim.SGD(groups)
        if not self.warm:
            return optimizer
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(step / 5, 1.0))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def _fit(module, task, steps, *callbacks, **options):
    running = trainer(steps, callbacks=list(callbacks), use_distributed_sampler=False, **options)
    running.fit(module, train_dataloaders=task.train_dataloader())
    return running


def _steps(monitor):
    return [row["step"] for row in monitor.rows]


@pytest.mark.parametrize("every", [3, [1, 4, 9], None])
def test_a_module_of_ones_own_gives_the_rows_of_ours(every):
    task, (network,) = small_task(16), networks(1)
    own, ours = RichnessMonitor(PROBE, every), RichnessMonitor(PROBE, every)
    _fit(Own(copy.deepcopy(network)), task, 12, own)
    _fit(NetworkModule(copy.deepcopy(network), task.loss, SGD), task, 12, ours)
    pd.testing.assert_frame_equal(own.table().drop(columns="trial"), ours.table().drop(columns="trial"))
    assert own.table()["kernel_distance"].iloc[-1] > 1e-4


@pytest.mark.parametrize(("every", "steps"), [(5, [0, 5, 10]), ([7, 2], [0, 2, 7]), (None, [0, 4, 8, 12]), ([], [0])])
def test_when_it_measures(every, steps):
    monitor = RichnessMonitor(PROBE, every)
    _fit(Own(networks(1)[0]), small_task(16), 12, monitor)  # 50 samples in batches of 16: an epoch is 4 updates
    assert _steps(monitor) == steps


def test_accumulated_batches_are_one_update():
    monitor = RichnessMonitor(PROBE, 1)
    _fit(Own(networks(1)[0]), small_task(16), 4, monitor, accumulate_grad_batches=2)
    assert _steps(monitor) == [0, 1, 2, 3, 4]


def test_rows_are_what_the_metrics_say():
    task, (network,) = small_task(), networks(1)
    start, module = copy.deepcopy(network), Own(network)
    monitor = RichnessMonitor(PROBE, [20])
    _fit(module, task, 20, monitor)
    last = monitor.table().iloc[-1]
    metrics = [
        KernelDistance(PROBE),
        ActivationHammingDistance(PROBE),
        ParameterDistance(),
        ParameterDistance(relative=True),
        ConservedQuantity(),
    ]
    for name, metric in zip(QUANTITIES, metrics, strict=True):
        metric.update(start)
        metric.update(module.model)
        assert last[name] == pytest.approx(float(metric.compute()), rel=1e-10)
        assert last[name] > 0
    delta = torch.tensor(last["delta"], dtype=torch.float64)
    assert (last["delta_mean"], last["delta_std"]) == (float(delta.mean()), float(delta.std(correction=0)))


def test_a_stack_gives_the_rows_of_each_network():
    task, nets, described, times = small_task(), networks(5), members(5), [0, 3, 10]
    stacked = RichnessMonitor(PROBE, times)
    trainer(10, callbacks=[stacked]).fit(stack(task, SGD, nets, described, cuts=times))
    for net, member in zip(nets, described, strict=True):
        alone = RichnessMonitor(PROBE, times)
        _fit(NetworkModule(copy.deepcopy(net), task.loss, SGD, member), task, 10, alone)
        found = stacked.table().query("trial == @member.trial")
        torch.testing.assert_close(
            torch.tensor(found[QUANTITIES].to_numpy()), torch.tensor(alone.table()[QUANTITIES].to_numpy()), rtol=1e-9, atol=1e-12
        )


def test_kernel_distance_starts_at_0_and_stays_within_1():
    task, times = small_task(dtype=torch.float32), [0, 1, 2, 5, 10, 50, 100]
    monitor = RichnessMonitor(PROBE.float(), times)
    trainer(100, callbacks=[monitor]).fit(stack(task, SGD, networks(5, torch.float32), members(5), cuts=times))
    frame = monitor.table()
    assert (frame.loc[frame["step"] == 0, QUANTITIES] == 0).all(axis=None)
    assert frame["kernel_distance"].between(0, 1).all()
    assert frame["hamming_distance"].between(0, 1).all()
    assert (frame.groupby("trial")["kernel_distance"].last() > 0).all()


def test_it_leaves_modes_gradients_and_random_numbers_alone():
    task = small_task(16)
    dropped = [nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 1)).double() for _ in range(2)]
    dropped[1].load_state_dict(dropped[0].state_dict())
    for network, callbacks in zip(dropped, ([], [RichnessMonitor(PROBE, [0, 1, 2, 5])]), strict=True):
        network[3].eval()
        torch.manual_seed(0)
        _fit(Own(network), task, 8, *callbacks)
    assert all(torch.equal(value, dropped[1].state_dict()[name]) for name, value in dropped[0].state_dict().items())
    assert [module.training for module in dropped[1]] == [module.training for module in dropped[0]]


def test_a_part_in_eval_mode_stays_in_it():
    class Watch(RichnessMonitor):
        def on_train_batch_end(self, trainer, pl_module, *rest):
            super().on_train_batch_end(trainer, pl_module, *rest)
            modes.append((pl_module.training, pl_module.model.layers[1].training))

    modes, (network,) = [], networks(1)
    network.layers[1].eval()
    _fit(Own(network), small_task(), 2, Watch(PROBE, 1))
    assert modes == [(True, False)] * 2


def test_metrics_that_cannot_serve_are_named_and_left_out():
    monitor = RichnessMonitor(PROBE, 5, details=False)
    _fit(Own(networks(1, activation="gelu")[0]), small_task(), 5, monitor)
    assert set(monitor.table().columns) == {"trial", "step", "kernel_distance", "parameter_distance", "parameter_distance_relative"}
    assert set(monitor.not_applicable) == {"hamming_distance", "delta_drift"}
    assert "no piecewise-linear activation" in monitor.not_applicable["hamming_distance"]


def test_details_cover_layers_velocity_rank_overlap_and_laws():
    monitor = RichnessMonitor(PROBE, [0, 5, 10])
    _fit(Own(networks(1)[0]), small_task(), 10, monitor)
    frame = monitor.table()
    shares = frame.filter(regex="^kernel_share/")
    assert list(shares.columns) == ["kernel_share/layers.0", "kernel_share/layers.2", "kernel_share/layers.4"]
    assert shares.sum(axis=1).tolist() == pytest.approx([1.0] * 3)
    assert frame.filter(regex="^hamming_distance/").mean(axis=1).tolist() == pytest.approx(frame["hamming_distance"].tolist())
    assert frame["kernel_velocity"].isna().tolist() == [True, False, False]
    assert frame["kernel_velocity"].iloc[1] == pytest.approx(frame["kernel_distance"].iloc[1])
    assert frame["kernel_overlap"].iloc[0] == pytest.approx(1.0)
    assert frame["kernel_effective_rank"].between(1, len(PROBE)).all()
    assert 0 == frame["law_drift"].iloc[0] < frame["law_drift"].iloc[2] < 0.1


def test_alignment_is_measured_where_targets_are_given():
    targets = torch.randn(len(PROBE), 1, dtype=torch.float64)
    monitor = RichnessMonitor(PROBE, [0], targets=targets)
    network = networks(1)[0]
    expected = kernel_alignment(empirical_ntk(network, PROBE, outputs="trace"), targets)
    _fit(Own(network), small_task(), 1, monitor)
    assert monitor.table()["kernel_alignment"].iloc[0] == pytest.approx(expected)


def test_laws_are_those_of_the_mode_in_which_the_network_trains():
    network = nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1)).double()
    monitor = RichnessMonitor(PROBE, [0, 3])
    _fit(Own(network), small_task(16), 3, monitor)
    assert 0 < monitor.table()["law_drift"].iloc[1] < 0.2  # weights in front of batch statistics keep their norm
    assert network.training


def test_a_network_that_has_no_kernel_is_measured_otherwise():
    class Coupled(nn.Sequential):
        def forward(self, x):
            return super().forward(x - x.mean(0))

    monitor = RichnessMonitor(PROBE, [0, 2])
    with pytest.warns(UserWarning, match="`RichnessMonitor` measures no kernels: the outputs of `Coupled` for a sample change"):
        _fit(Own(Coupled(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)).double()), small_task(), 2, monitor)
    assert {"kernel_distance", "kernel_velocity"} <= set(monitor.not_applicable)
    assert monitor.table()["parameter_distance"].iloc[-1] > 0


def test_any_image_network_is_measured():
    network, probe = resnet18(num_classes=2), torch.randn(4, 3, 32, 32)
    images = [*zip(torch.randn(8, 3, 32, 32), torch.randn(8, 2), strict=True)]
    monitor = RichnessMonitor(probe, [0, 1])
    trainer(1, callbacks=[monitor]).fit(Own(network), train_dataloaders=torch.utils.data.DataLoader(images, batch_size=8))
    last = monitor.table().iloc[-1]
    assert monitor.not_applicable == {}
    assert all(last[name] > 0 for name in (*QUANTITIES, "law_drift", "kernel_share/layer1.0.conv1", "hamming_distance/layer4.1.relu/2"))


def test_networks_over_tokens_keep_their_integer_probe():
    class Tokens(nn.Sequential):
        def forward(self, x):
            return super().forward(x).mean(1)

    network = Tokens(nn.Embedding(7, 4), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1))
    tokens, targets = torch.randint(7, (10, 3)), torch.randn(10, 1)
    monitor = RichnessMonitor(tokens, 1)
    trainer(2, callbacks=[monitor]).fit(Own(network), train_dataloaders=torch.utils.data.DataLoader([*zip(tokens, targets, strict=True)]))
    assert monitor.table()["parameter_distance"].iloc[-1] > 0


def test_directions_are_readout_norm_times_weights():
    (network,) = networks(1, depth=1, bias=False)
    monitor = RichnessMonitor(PROBE, [], directions=True)
    expected = torch.stack([network.layers[2].weight[:, k].norm() * network.layers[0].weight[k] for k in range(8)]).flatten().tolist()
    _fit(Own(network), small_task(), 1, monitor)
    assert monitor.rows[0]["directions"] == pytest.approx(expected)


def test_directions_count_all_columns_of_a_unit():
    class ChannelsLast(nn.Module):
        def forward(self, x):
            return x.mT

    network = nn.Sequential(nn.Conv1d(1, 2, 2, bias=False), nn.ReLU(), ChannelsLast(), nn.Flatten(), nn.Linear(6, 1))
    expected = network[4].weight.view(3, 2).norm(dim=0)[:, None] * network[0].weight[:, 0]
    assert _directions(network) == pytest.approx(expected.flatten().tolist())


def test_directions_of_a_network_without_units_are_refused():
    with pytest.raises(NotApplicable, match="`MLP` has no two weight layers joined by a homogeneous activation"):
        _fit(Own(networks(1, activation="tanh")[0]), small_task(), 1, RichnessMonitor(PROBE, 1, directions=True))


@pytest.mark.parametrize("warm", [False, True])
def test_learning_rates_of_parameter_groups_are_counted_in(warm):
    (network,) = networks(1, depth=1)
    start, rates = copy.deepcopy(network), {"layers.0.weight": 1.0, "layers.0.bias": 1.0, "layers.2.weight": 0.1, "layers.2.bias": 0.1}
    monitor, module = RichnessMonitor(PROBE, [0, 300]), Grouped(network, 1e-3, 1e-4, warm=warm)
    _fit(module, small_task(), 300, monitor)
    metrics = [KernelDistance(PROBE, rates=rates), ConservedQuantity(rates=rates), ConservedQuantity()]
    for metric in metrics:
        metric.update(start)
        metric.update(network)
    last = monitor.table().iloc[-1]
    assert [last["kernel_distance"], last["delta_drift"]] == pytest.approx([float(metric.compute()) for metric in metrics[:2]])
    assert last["law_drift"] == pytest.approx(last["delta_drift"])
    assert last["delta_drift"] <= 1e-5 < 1e-3 < float(metrics[2].compute())


@pytest.mark.parametrize(
    ("lrs", "expected"),
    [((0.2, 0.2, 0.2), [1, 1, 1]), ((0.1, 0.4, 0.2), [0.25, 1, 0.5]), ((0.1, 0.4), [0.25, 1, None]), ((0.0, 0.0, 0.0), [None] * 3)],
)
def test_rates_of_a_module_of_ones_own_are_relative_to_the_largest(lrs, expected):
    module = Grouped(networks(1)[0], *lrs)
    assert [view.rates for view in views(module)] == [{}]  # no trainer yet
    _fit(module, small_task(), 1)
    (view,) = views(module)
    assert [view.rates.get(f"layers.{i}.weight") for i in (0, 2, 4)] == expected


def test_rates_stay_those_of_the_start():
    class Later(Grouped):
        def on_train_batch_start(self, batch, batch_idx):
            self.optimizers().param_groups[0]["lr"] = 0.0

    monitor, start = RichnessMonitor(PROBE, 1), networks(1)[0]
    _fit(Later(copy.deepcopy(start), 1e-9, 1e-9, 1e-9), small_task(), 2, monitor)
    assert monitor.table()["kernel_distance"].max() < 1e-6


def test_a_layer_whose_rate_is_0_has_no_share_of_the_kernel_and_no_laws():
    monitor = RichnessMonitor(PROBE, 1)
    _fit(Grouped(networks(1)[0], 0.0, 0.1, 0.1), small_task(), 2, monitor)
    assert monitor.table()["kernel_share/layers.0"].max() == 0.0
    assert "the learning rate of `layers.0.bias` is 0" in monitor.not_applicable["delta_drift"] == monitor.not_applicable["law_drift"]


class Branching(nn.Module):
    """Uses one parameter more where `when` says so of itself and its inputs."""

    def __init__(self, when):
        super().__init__()
        self.first, self.second, self.third, self.when = nn.Linear(6, 8), nn.Linear(8, 1), nn.Linear(1, 1), when
        self.double()

    def forward(self, x):
        found = self.second(self.first(x).relu())
        return self.third(found.relu()) if self.when(self, x) else found


@pytest.mark.parametrize(
    ("when", "measured"),
    [(lambda _, x: bool((x == PROBE[7]).all(-1).any()), 0), (lambda net, _: bool(net.second.bias != net.start), 1)],
    ids=["for sample 7", "after an update"],
)
def test_training_goes_on_where_the_network_takes_another_branch(when, measured):
    network, monitor = Branching(when), RichnessMonitor(PROBE, 1)
    network.start = network.second.bias.detach().clone()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        _fit(Own(network), small_task(), 3, monitor)
    said = [str(each.message) for each in caught if "measures no kernels" in str(each.message)]
    assert len(said) == 1
    assert "`Branching` uses its parameters in another way" in said[0]
    assert "in another way" in monitor.not_applicable["kernel_distance"]
    frame = monitor.table()
    assert frame.get("kernel_distance", pd.Series(dtype=float)).count() == measured
    assert frame["parameter_distance"].count() == 4
    assert ("as many activations" in monitor.not_applicable.get("hamming_distance", "")) == bool(measured)


class Pieces(Own):
    """Without a `forward` and with the network in two children."""

    def __init__(self):
        super().__init__(nn.Linear(6, 8).double())
        self.other = nn.Linear(8, 1).double()

    def training_step(self, batch, batch_idx):
        return nn.functional.mse_loss(self.other(self.model(batch[0])), batch[1])


def _refused(module, probe):
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ParameterError) as caught:
        _fit(module, small_task(), 2, RichnessMonitor(probe, [1]))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert "\n" not in str(caught.value)
    return caught.value


def test_a_module_that_cannot_be_called_is_refused_before_the_first_update():
    error = _refused(Pieces(), PROBE)
    assert str(error).startswith("`RichnessMonitor` cannot call `Pieces` on its probe (12, 6): NotImplementedError: ")
    assert str(error).endswith("; give it a `forward`, or put the whole network into one child module")
    assert isinstance(error.__cause__, NotImplementedError)


def test_a_probe_that_does_not_fit_is_refused_before_the_first_update():
    error = _refused(Own(networks(1)[0]), torch.randn(256, 9))
    assert str(error).startswith("`RichnessMonitor` cannot call `MLP` on its probe (256, 9): RuntimeError: mat1 and mat2 ")
    assert str(error).endswith("; give a `probe` of inputs that it takes")
    assert isinstance(error.__cause__, RuntimeError)


def test_a_module_with_a_forward_over_a_list_of_layers_is_called_itself():
    class Listed(Own):
        def forward(self, x):
            return self.model[1](self.model[0](x).relu())

        def training_step(self, batch, batch_idx):
            return nn.functional.mse_loss(self(batch[0]), batch[1])

    monitor = RichnessMonitor(PROBE, 1)
    _fit(Listed(nn.ModuleList([nn.Linear(6, 8), nn.Linear(8, 1)]).double()), small_task(), 1, monitor)
    assert monitor.table()["kernel_distance"].iloc[-1] > 0


def test_the_loss_adds_the_laws_of_its_softmax():
    class Classes(Own):
        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self.model(batch[0]), (batch[1][:, 0] > 0).long())

    drifts = []
    for loss in (None, "cross_entropy"):
        monitor = RichnessMonitor(PROBE, 1, loss=loss)
        torch.manual_seed(0)
        _fit(Classes(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()), small_task(), 2, monitor)
        drifts.append(monitor.table().get("law_drift"))
    assert drifts[0] is None  # tanh: nothing else is conserved
    assert 0 <= drifts[1].max() < 1e-12


@pytest.mark.parametrize(
    "take",
    [
        lambda loss: RichnessMonitor(PROBE, loss=loss),
        lambda loss: unwrap(find_laws)(networks(1)[0], loss=loss),
        lambda loss: ConservationLaws(loss=loss).update(networks(1)[0]),
    ],
    ids=["monitor", "finder", "metric"],
)
def test_a_loss_without_known_laws_is_refused(take, monkeypatch):
    monkeypatch.setattr(conserved, "find_laws", unwrap(find_laws))  # without the tests' own type checker
    with pytest.raises(ParameterError, match="unknown `loss` 'ce', or None for any; valid: cross_entropy"):
        take("ce")


@pytest.mark.parametrize("every", [0, -3])
def test_an_interval_is_checked(every):
    with pytest.raises(ParameterError, match=f"`every` must be at least 1 update, got {every}"):
        RichnessMonitor(PROBE, every)


def _events(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0})
    events.Reload()
    return events


@pytest.mark.parametrize("stacked", [False, True])
def test_tensorboard_gets_scalars_and_a_histogram_at_true_steps(tmp_path, stacked):
    task, nets, times = small_task(), networks(2), [0, 2, 6]
    monitor, logger = RichnessMonitor(PROBE, times), TensorBoardLogger(tmp_path, name="", version="")
    if stacked:
        trainer(6, callbacks=[monitor], logger=logger).fit(stack(task, SGD, nets, members(2), cuts=times))
    else:
        _fit(Own(nets[0]), task, 6, monitor, logger=logger)
    logger.finalize("success")
    events, table = _events(tmp_path), monitor.table()
    for name in [*QUANTITIES, "delta_mean", "delta_std", "kernel_share/layers.0", "kernel_effective_rank"]:
        found = {event.step: event.value for event in events.Scalars(f"richness/{name}")}
        assert found == pytest.approx(table.groupby("step")[name].mean().to_dict(), rel=1e-6)
    assert [event.step for event in events.Histograms("richness/delta")] == times
    assert events.Histograms("richness/delta")[0].histogram_value.num == len(table) // 3 * 16


def test_a_diverged_network_is_logged_without_an_exception(tmp_path):
    logger, monitor = TensorBoardLogger(tmp_path, name="", version=""), RichnessMonitor(PROBE, 2)
    module = NetworkModule(networks(1)[0], small_task().loss, SGD, Member("t", 1e30))
    _fit(module, small_task(), 20, monitor, logger=logger)
    logger.finalize("success")
    assert monitor.table()["parameter_distance"].isna().iloc[-1]
    assert [event.step for event in _events(tmp_path).Histograms("richness/delta")] == [0]


def test_any_logger_gets_the_scalars(tmp_path):
    logger = CSVLogger(tmp_path, name="", version="")
    _fit(Own(networks(1)[0]), small_task(), 4, RichnessMonitor(PROBE, 2), logger=logger)
    frame = pd.read_csv(tmp_path / "metrics.csv")
    assert frame.loc[frame["richness/kernel_distance"].notna(), "step"].tolist() == [0, 2, 4]


@pytest.mark.parametrize("stacked", [False, True])
def test_losses_are_recorded_at_their_times(stacked):
    task, nets, times = small_task(), networks(2), [0, 4, 9]
    recorder = LossRecorder(task.train, task.test, times)
    if stacked:
        trainer(9, callbacks=[recorder]).fit(stack(task, SGD, nets, members(2), cuts=times))
    else:
        _fit(NetworkModule(copy.deepcopy(nets[0]), task.loss, SGD, Member("t0")), task, 9, recorder)
    frame = recorder.table().query("trial == 't0'")
    assert frame["step"].tolist() == times
    start = frame.iloc[0]
    for name, split in (("train_loss", task.train), ("test_loss", task.test)):
        assert start[name] == pytest.approx(float(nn.functional.mse_loss(nets[0](split.inputs), split.targets).detach()))
    assert frame["train_loss"].iloc[-1] < start["train_loss"]


def test_a_network_alone_that_diverges_is_noted():
    task = small_task(dtype=torch.float32)
    recorder = LossRecorder(task.train, task.test, [0, 1, 5, 8])
    _fit(NetworkModule(networks(1, torch.float32)[0], task.loss, SGD, Member("t", 1e30)), task, 8, recorder)
    assert set(recorder.not_finite) == {"t"}
    assert recorder.table()["step"].tolist() == [step for step in (0, 1, 5, 8) if step < recorder.not_finite["t"]]
