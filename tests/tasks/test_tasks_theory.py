"""The data of the theory's benchmarks: given inputs and targets, and the XOR-like task."""

import pytest
import torch

from richlearn.errors import ParameterError
from richlearn.tasks import LinearRegression, Xor


def test_given_inputs_and_target_map_are_what_a_user_wrote():
    task = LinearRegression(dimension=2, design="given", inputs=[[0.5, 1.0]], beta_star=[0.44, 0.88], dtype=torch.float64)
    assert task.train.inputs.tolist() == [[0.5, 1.0]]
    torch.testing.assert_close(task.train.targets, torch.tensor([[1.1]], dtype=torch.float64))


def test_a_given_target_map_keeps_the_design_of_the_seed():
    drawn, given = (LinearRegression(seed=3, dimension=3, train_size=5, **more) for more in ({}, {"beta_star": [1.0, 0.0, 2.0]}))
    assert torch.equal(drawn.train.inputs, given.train.inputs)
    torch.testing.assert_close(given.train.targets[:, 0], given.train.inputs @ torch.tensor([1.0, 0.0, 2.0]))


def test_several_outputs_take_a_matrix():
    task = LinearRegression(dimension=2, outputs=2, beta_star=[[1.0, 2.0], [3.0, 4.0]])
    assert task.beta_star().tolist() == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": [[1.0, 2.0]]}, "`inputs` and `design` given belong together"),
        ({"design": "given"}, "`inputs` and `design` given belong together"),
        ({"beta_star": [1.0, 2.0, 3.0]}, r"`beta_star` must be finite numbers of shape \(2, 1\)"),
        ({"beta_star": [1.0, float("nan")]}, "`beta_star` must be finite numbers"),
        ({"design": "given", "inputs": [[1.0, 2.0], [3.0]]}, "`inputs` must be rows of numbers of one length"),
        ({"design": "given", "inputs": [[1.0, 2.0, 3.0]]}, r"`inputs` must be finite numbers of shape \(n, 2\)"),
    ],
)
def test_given_numbers_must_fit(arguments, message):
    with pytest.raises(ParameterError, match=message):
        LinearRegression(dimension=2, **arguments)


def test_xor_labels_are_the_product_of_the_signs_and_clusters_are_balanced():
    split = Xor(train_size=40, noise=0.05, dtype=torch.float64).train
    assert torch.equal(split.targets, split.inputs.prod(1, keepdim=True).sign())
    assert split.inputs.sign().unique(dim=0, return_counts=True)[1].tolist() == [10] * 4


def test_no_linear_function_fits_xor():
    split = Xor(train_size=400, dtype=torch.float64).train
    fitted = split.inputs @ torch.linalg.lstsq(split.inputs, split.targets).solution
    assert float((fitted - split.targets).square().mean()) > 0.95


def test_xor_depends_on_its_seed_alone():
    assert torch.equal(Xor(seed=1).train.inputs, Xor(seed=1).train.inputs)
    assert not torch.equal(Xor(seed=1).train.inputs, Xor(seed=2).train.inputs)


def test_xor_refuses_what_it_cannot_be():
    with pytest.raises(ParameterError, match="must be at least 4, a point a cluster, got 3 and 1000"):
        Xor(train_size=3)
    with pytest.raises(ParameterError, match="`noise` must be at least 0"):
        Xor(noise=-1.0)
