"""δ of every unit as the suite itself builds the phase portrait's networks."""

import pytest
import torch

from richlearn.bench.build import network_of, task_of
from richlearn.metrics import conserved_quantities

TAUS = torch.logspace(-1, 0.3, 17, dtype=torch.float64).tolist()
DELTAS = torch.linspace(-1, 1, 17, dtype=torch.float64).tolist()


def _spec(tau: float, delta: float, seed: int) -> dict:
    return {
        "seed": seed,
        "task": {"name": "teacher_student", "parameters": {"dimension": 100, "train_size": 4, "test_size": 4}},
        "network": {"name": "two_layer", "parameters": {"width": 50}},
        "scheme": {"name": "unbalanced", "parameters": {"tau": tau, "delta": delta}},
        "training": {"batch_size": None, "precision": "64-true"},
        "optimizer": {"name": "sgd"},
        "measure": {"probe": 4},
    }


@pytest.mark.parametrize("seed", [0, 7])
def test_every_unit_of_the_papers_grid_starts_at_delta(seed):
    task = task_of(_spec(1.0, 0.0, seed))
    for tau in TAUS[::8]:
        for delta in DELTAS:
            network, _ = network_of(_spec(tau, delta, seed), task)
            found, _ = conserved_quantities(network)
            assert found.shape == (50,)
            assert (found - delta).abs().max() <= 1e-6 * abs(delta) + 1e-14
