"""The gradient of a large contrastive batch in the memory of a small one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import get_device_states, set_device_states

from ..losses import Views
from .embedding import Embedder, Embeddings, split


def cached_loss(
    embedder: Embedder,
    model: nn.Module,
    inputs: dict[str, torch.Tensor],
    *,
    unwrapped: nn.Module,
    parts: int,
    objective: Callable[[Views], torch.Tensor],
    backward: Callable[[torch.Tensor], None],
    no_sync: Callable[[], AbstractContextManager],
) -> torch.Tensor:
    """The loss of the whole batch, whose gradient passes the towers in parts.

    Pictures and texts pass the towers without a graph, part by part; the loss of all of them gives the gradient of
    every embedding; then each part passes again, with a graph, and takes the gradient of its own embeddings to the
    weights. The sum is the gradient of the plain loss up to rounding, for one more forward. Activations are held for
    one part only. What the model draws (dropout) is drawn again alike.

    Args:
        embedder: Embeds batches.
        model: The dual encoder, wrapped or not.
        inputs: A batch of `DataCollatorForTACleaner`.
        unwrapped: The model itself.
        parts: In how many parts of about the same size; at most the number of pairs.
        objective: Views of the global batch -> the loss.
        backward: Takes the gradient of all parts but the last to the weights.
        no_sync: A context in which that gradient stays in this process.

    Returns:
        The loss. Its `backward()` takes the last part's gradient to the weights, and it is that which is shared among
        processes: what scales or wraps a loss's backward must do the same to `backward`.

    Source:
        Gao et al. 2021 (arXiv 2101.06983), section 3.
    """
    batches = split(inputs, parts)
    draws: list[_Draws] = []
    passed: list[Embeddings] = []
    with torch.no_grad():
        for batch in batches:
            draws.append(_Draws(batch["pixel_values"]))
            passed.append(embedder.towers(model, batch))
    leaves = [torch.cat(side).requires_grad_() for side in zip(*passed, strict=True)]
    heads = embedder.heads(unwrapped)
    free = [head.detach().requires_grad_(head.requires_grad) if head is not None else None for head in heads]
    loss = objective(embedder.views(Embeddings(*leaves), inputs, *free, parts=parts))
    wanted = [*leaves, *(head for head in free if head is not None and head.requires_grad)]
    gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
    shares = zip(*(side.split([len(part[i]) for part in passed]) for i, side in enumerate(gradients[:2])), strict=True)
    del passed, leaves

    for number, (batch, drawn, share) in enumerate(zip(batches, draws, shares, strict=True)):
        last = number == parts - 1
        with nullcontext() if last else no_sync():
            with drawn.again():
                surrogate = _product(embedder.towers(model, batch), share)
            if not last:
                backward(surrogate)
    surrogate = surrogate + _of_heads(heads, free, gradients[2:])
    return loss.detach() + (surrogate - surrogate.detach())


def _of_heads(heads, free, gradients) -> torch.Tensor | float:
    """What takes the gradients of scale and bias to them; `free` are the copies that the loss was made of."""
    trained = [head for head, own in zip(heads, free, strict=True) if own is not None and own.requires_grad]
    return sum((head * g for head, g in zip(trained, gradients, strict=True) if g is not None), start=0.0)


def _product(embeddings: Embeddings, gradients: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """A scalar whose gradient with regard to the embeddings is the one given."""
    return sum((own * gradient).sum() for own, gradient in zip(embeddings, gradients, strict=True))


class _Draws:
    """The state of the random generators before a part's first pass, to be restored for its second."""

    def __init__(self, pixels: torch.Tensor) -> None:
        self.cpu = torch.get_rng_state()
        self.devices, self.states = get_device_states(pixels)
        self.kind = pixels.device.type

    @contextmanager
    def again(self) -> Iterator[None]:
        forked: dict[str, Any] = {} if self.kind == "cpu" else {"device_type": self.kind}
        with torch.random.fork_rng(self.devices, **forked):
            torch.set_rng_state(self.cpu)
            if self.devices:
                set_device_states(self.devices, self.states, device_type=self.kind)
            yield
