"""Gathering across processes with gradient, so that losses see plain tensors of the global batch."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import torch
import torch.distributed as dist


class _GatherWithGrad(torch.autograd.Function):
    """All-gather whose backward sums every process' gradient of the gathered tensor and keeps the own slice."""

    @staticmethod
    def forward(ctx, local: torch.Tensor) -> torch.Tensor:
        ctx.rows = len(local)
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        start = dist.get_rank() * ctx.rows
        return grad[start : start + ctx.rows]


def world_size() -> int:
    """The number of processes; 1 when nothing is distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process; 0 when nothing is distributed."""
    return dist.get_rank() if world_size() > 1 else 0


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replaces every gradient by its mean over the processes, as DDP does; for loops that do not wrap the model."""
    if world_size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))


def share(tensors: Sequence[torch.Tensor]) -> None:
    """Makes tensor i everywhere what it is on process i mod (number of processes), in place."""
    for owner in range(world_size() if world_size() > 1 else 0):
        own = [tensor.data for tensor in tensors[owner :: world_size()]]
        if not own:
            continue
        flat = torch.cat([tensor.flatten() for tensor in own])
        dist.broadcast(flat, owner)
        for tensor, value in zip(own, flat.split([tensor.numel() for tensor in own]), strict=True):
            tensor.copy_(value.view_as(tensor))


def gather(local: torch.Tensor) -> torch.Tensor:
    """Concatenates `local` `(n, ...)` of all processes along the first axis, in the order of their ranks.

    Every process must bring the same shape. Gradients flow back to every process; since each process computes the
    whole global loss and DDP averages over processes, the result equals one process with the global batch.
    """
    if world_size() == 1:
        return local
    if not local.is_floating_point():
        parts = [torch.empty_like(local) for _ in range(world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)
    return _GatherWithGrad.apply(local)


def dealt(rows: np.ndarray) -> np.ndarray:
    """This process's share of the rows, dealt out by turns; all of them when nothing is distributed."""
    return rows[rank() :: world_size()]


def undeal(own: dict[Hashable, np.ndarray]) -> dict[Hashable, np.ndarray]:
    """Puts arrays over dealt rows together again, on every process, in the order of the rows before `dealt`.

    A process that was dealt no row brings an empty dictionary.
    """
    if world_size() == 1:
        return own
    hands: list[dict[Hashable, np.ndarray]] = [{}] * world_size()
    dist.all_gather_object(hands, own)
    whole = {}
    for key, first in hands[0].items():
        parts = [hand[key] for hand in hands if key in hand]
        whole[key] = np.empty((sum(map(len, parts)), *first.shape[1:]), first.dtype)
        for turn, part in enumerate(parts):
            whole[key][turn :: len(hands)] = part
    return whole
