"""Data-parallel training under torchrun: every process takes its rows of each batch, gradients are averaged by targets.

    torchrun --nproc-per-node 4 -m toolrec train data/ml-1m

One process alone is a group of one, and nothing is sent. Results are those of one process, but for dropout, last bits, and
the negatives of `in_batch_softmax`, `bce` and `bpr`, which every process draws for its own rows.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from toolrec.recommenders.training.batches import Batch


@dataclass(frozen=True, slots=True)
class Group:
    """The processes that train together, and which one this is."""

    position: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and shows the progress."""
        return self.position == 0

    def part(self, batch: Batch) -> Batch:
        """This process's rows of a batch; there may be none."""
        if self.size == 1:
            return batch
        rows = slice(self.position, None, self.size)
        return Batch(batch.example_B[rows], batch.input_BL[rows], batch.target_BL[rows])

    def average(self, parameters: Sequence[Tensor], loss: float, num_targets: int) -> float:
        """Replaces gradients by their mean over all targets of all processes; returns the mean loss."""
        if self.size == 1:
            return loss
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        grads = [p.grad for p in parameters if p.grad is not None]
        told = torch.tensor([loss * num_targets, num_targets], dtype=grads[0].dtype, device=grads[0].device)
        flat = torch.cat([*(grad.reshape(-1) * num_targets for grad in grads), told])
        dist.all_reduce(flat)
        flat[:-1] /= flat[-1]
        start = 0
        for grad in grads:
            grad.copy_(flat[start : start + grad.numel()].view_as(grad))
            start += grad.numel()
        return float(flat[-2])

    def agree(self, value: float) -> float:
        """The first process's value, so that all of them decide the same."""
        if self.size == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=_device())
        dist.broadcast(shared, src=0)
        return float(shared)

    def is_same(self, value: float) -> bool:
        """Whether all processes have the same value; none goes on before every one has said its own."""
        if self.size == 1:
            return True
        both = torch.tensor([value, -value], dtype=torch.float64, device=_device())
        dist.all_reduce(both, op=dist.ReduceOp.MAX)
        return bool(both[0] == -both[1])


def current_group() -> Group:
    """The group that this process is in."""
    if dist.is_available() and dist.is_initialized():
        return Group(dist.get_rank(), dist.get_world_size())
    return Group()


def local_position() -> int:
    """Which of this machine's processes this is: it takes the GPU of that number."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextlib.contextmanager
def joined(*, is_cuda: bool) -> Iterator[Group]:
    """Joins the group that torchrun made, if it started this process; leaves it at the end."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield current_group()
        return
    if is_cuda:
        torch.cuda.set_device(local_position())
    dist.init_process_group("nccl" if is_cuda else "gloo")
    try:
        yield current_group()
    finally:
        dist.destroy_process_group()


def _device() -> torch.device:
    return torch.device("cuda", local_position()) if dist.get_backend() == "nccl" else torch.device("cpu")
