"""From a trial's content to live objects: task, network, scheme, optimiser."""

import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from richlearn import catalog
from richlearn.errors import NotApplicable, ParameterError, UsageError, nearest
from richlearn.networks._trace import as_input
from richlearn.predictions import PredictionMonitor
from richlearn.predictions.monitor import check_function, matrices, setting
from richlearn.schemes.base import Scheme
from richlearn.schemes.multipliers import Multipliers
from richlearn.seeds import generator, global_stream
from richlearn.tasks.base import Task
from richlearn.training.optimizers import Optimizer
from richlearn.training.schedules import Schedule
from richlearn.training.stopping import Stopping

DTYPES = {"32-true": torch.float32, "64-true": torch.float64}
_ELSEWHERE = {"seed": "`seeds`", "batch_size": "`training.batch_size`", "dtype": "`training.precision`"}
_UNEXPECTED = re.compile(r"unexpected keyword argument '(\w+)'")


def _argument_names(component: type) -> set[str]:
    """The keyword arguments of a class, those of its bases included, which it may pass on."""
    own = [vars(base)["__init__"] for base in component.__mro__ if base is not object and "__init__" in vars(base)]
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {name for init in own for name, given in inspect.signature(init).parameters.items() if given.kind in named} - {"self"}


def _complaint(component: type, error: TypeError) -> str:
    """What Python says of wrong arguments, without the name of a function, and the nearest valid argument."""
    text = str(error).partition(") ")[2] or str(error)
    unknown = _UNEXPECTED.search(text)
    return f"unknown argument `{unknown[1]}`; {nearest(unknown[1], _argument_names(component))}" if unknown else text


def _made(kind: catalog.Catalog, name: str, arguments: dict[str, Any], *positional: Any) -> Any:
    """An instance of the component, its complaints about arguments as one line that names the component."""
    component = kind.load(name)
    try:
        return component(*positional, **arguments)
    except ParameterError as error:
        raise ParameterError(f"{kind.kind} `{name}`: {error}") from None
    except TypeError as error:
        raise ParameterError(f"{kind.kind} `{name}`: {_complaint(component, error)}") from error


def task_of(spec: dict[str, Any]) -> Task:
    """The task of a trial, its data still undrawn."""
    training = spec["training"]
    common = {"seed": spec["seed"], "batch_size": training["batch_size"], "dtype": DTYPES[training["precision"]]}
    parameters = spec["task"]["parameters"]
    if taken := sorted(parameters.keys() & common.keys()):
        raise ParameterError(f"task `{spec['task']['name']}`: `{taken[0]}` is not a parameter here: {_ELSEWHERE[taken[0]]} gives it")
    return _made(catalog.TASKS, spec["task"]["name"], {**parameters, **common})


def check_goal(spec: dict[str, Any]) -> None:
    """Raise `ParameterError` where the goal is an accuracy and the task has none."""
    quantity, task = spec["goal"]["quantity"], task_of(spec)
    if quantity.endswith("accuracy") and not task.loss.classifies:
        raise ParameterError(f"`quantity` {quantity} needs a classification; the loss of task `{spec['task']['name']}` is {task.loss.name}")


def scheme_of(spec: dict[str, Any]) -> Scheme:
    """The scheme of a trial."""
    scheme = _made(catalog.SCHEMES, spec["scheme"]["name"], spec["scheme"]["parameters"])
    if not callable(getattr(scheme, "apply", None)):
        raise UsageError(f"scheme `{spec['scheme']['name']}` has no method `apply(network, generator, *, batch, optimizer)`")
    return scheme


def optimizer_of(spec: dict[str, Any]) -> Optimizer:
    """The optimiser of a trial, at its base learning rate."""
    optimizer, steps = dict(spec["optimizer"]), spec["training"]["steps"]
    schedule = Schedule(**optimizer.pop("schedule"), steps=steps)
    return Optimizer(**{**optimizer, "betas": tuple(optimizer["betas"])}, lr=spec["lr"], schedule=schedule)


def network_of(spec: dict[str, Any], task: Task) -> tuple[nn.Module, Multipliers]:
    """The trial's network, initialised, in the trial's precision, and its multipliers.

    Initialisation happens in float64 and is cast once, so that both precisions start from the same network and δ is
    exact to the last bit that the trial's precision has.

    Raises:
        NotApplicable: the scheme cannot serve the network.
    """
    with global_stream(generator(spec["seed"], "network", "construction")):
        network = _made(catalog.NETWORKS, spec["network"]["name"], spec["network"]["parameters"], task.in_features, task.out_features)
    network = network.double()
    inputs = as_input(network, task.train.inputs[: spec["measure"]["probe"]])
    multipliers = scheme_of(spec).apply(network, generator(spec["seed"], "network"), batch=inputs, optimizer=spec["optimizer"]["name"])
    return network.to(task.dtype), multipliers


def prediction_monitor(spec: dict[str, Any], task: Task, times: Iterable[int], lr: Mapping[str, float]) -> PredictionMonitor | None:
    """The callback that compares the trials of a batch with the protocol's prediction; None where it has none."""
    if "prediction" not in spec:
        return None
    return PredictionMonitor(catalog.PREDICTIONS.load(spec["prediction"])(), task.train, times, lr, loss=task.loss)


def check_prediction(spec: dict[str, Any], task: Task, network: nn.Module, multipliers: Multipliers) -> None:
    """Raise `NotApplicable` where the protocol's prediction cannot speak of a trial's network."""
    if (monitor := prediction_monitor(spec, task, [], {})) is None:
        return
    weights = matrices(network)
    check_function(monitor.prediction, network, task.train.inputs)
    try:
        monitor.prediction.predict(list(weights.values()), setting(task.train, multipliers.lr, weights), np.array([0.0, spec["lr"]]))
    except ParameterError as error:
        raise NotApplicable(f"prediction `{spec['prediction']}`: {error}") from None


def stopping_of(spec: dict[str, Any]) -> Stopping | None:
    """When a trial ends before its budget; None: never."""
    training, goal = spec["training"], spec["goal"]
    goals: dict[str, Any] = {}
    if training.get("stop_at_goal"):
        # Fitting the training set is timed as well, and may come last.
        goals |= dict.fromkeys((goal["quantity"], "train_accuracy"), goal["threshold"])
    if not goals and training.get("stop_below") is None:
        return None
    return Stopping(training.get("stop_below"), goals, goal["sustained"], spec["measure"]["check_every"])


def reason_not_applicable(spec: dict[str, Any]) -> str | None:
    """Why the trial's scheme cannot serve its network, or None."""
    try:
        network_of(spec, task_of(spec))
    except NotApplicable as reason:
        return str(reason)
    return None
