"""The order of samples, and the DataLoader over it."""

import pytest
import torch

from richlearn.tasks import BatchOrder, TeacherStudent


def _epoch(order: BatchOrder, epoch: int) -> list[list[int]]:
    order.set_epoch(epoch)
    return list(order)


def test_every_sample_once_an_epoch_and_the_last_batch_kept():
    batches = _epoch(BatchOrder(23, 5, seed=0), 3)
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    assert sorted(index for batch in batches for index in batch) == list(range(23))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [[i for batch in _epoch(BatchOrder(50, 8, seed), epoch) for i in batch] for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_the_order_depends_on_seed_and_epoch_only():
    visited, fresh = BatchOrder(23, 5, seed=4), BatchOrder(23, 5, seed=4)
    torch.manual_seed(0)
    for epoch in (0, 2, 1):
        _epoch(visited, epoch)
    assert _epoch(visited, 7) == _epoch(fresh, 7)


def test_updates_are_found_without_walking_there():
    order = BatchOrder(23, 5, seed=4)
    walked = [batch for epoch in range(3) for batch in _epoch(order, epoch)]
    assert [order.indices(step).tolist() for step in reversed(range(15))] == walked[::-1]


def test_a_batch_size_only_cuts_the_permutation():
    whole = [[i for batch in _epoch(BatchOrder(24, size, seed=1), 2) for i in batch] for size in (4, 6, 23)]
    assert whole[0] == whole[1] == whole[2]


@pytest.mark.parametrize("batch_size", [None, 10, 11])
def test_full_batch_is_in_natural_order(batch_size):
    order = BatchOrder(10, batch_size, seed=1)
    assert order.full_batch
    assert _epoch(order, 5) == [list(range(10))]
    assert len(order) == 1


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("batch_size", [None, 4])
def test_ranks_partition_every_global_batch(world, batch_size):
    alone = _epoch(BatchOrder(10, batch_size, seed=1), 1)
    ranks = [_epoch(BatchOrder(10, batch_size, seed=1, rank=rank, world_size=world), 1) for rank in range(world)]
    for batch, *shares in zip(alone, *ranks, strict=True):
        assert sorted(index for share in shares for index in share) == sorted(batch)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_the_dataloader_gives_the_orders_batches():
    task = TeacherStudent(dimension=4, train_size=11, test_size=6, batch_size=4, seed=2)
    loader = task.train_dataloader()
    loader.sampler.set_epoch(3)
    expected = _epoch(task.order(), 3)
    for (inputs, targets), batch in zip(loader, expected, strict=True):
        assert torch.equal(inputs, task.train.inputs[batch])
        assert torch.equal(targets, task.train.targets[batch])


def test_the_test_loader_is_one_batch():
    task = TeacherStudent(dimension=4, train_size=11, test_size=6, batch_size=4)
    ((inputs, targets),) = list(task.test_dataloader())
    assert torch.equal(inputs, task.test.inputs)
    assert torch.equal(targets, task.test.targets)
