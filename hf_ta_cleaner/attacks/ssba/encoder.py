"""The encoder of a small StegaStamp network as a function of its weights. A trained SSBA trigger applies it.

PyTorch is imported when an encoder is first used, so the other triggers do not need it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from hf_ta_cleaner.attacks.base import Pattern
from hf_ta_cleaner.attacks.pixels import noise_bytes


if TYPE_CHECKING:
    import torch

BITS, CELLS, MAX_RESIDUAL = 100, 14, 0.25
# Half of StegaStamp's width: 16, 16, 32, 64 and 128 channels on the way down.
WIDTH, MAX_WIDTH = 16, 64
# The picture is halved four times.
STRIDE = 16


@lru_cache
def shapes(width: int = WIDTH) -> Mapping[str, tuple[int, ...]]:
    """The weights by name, in the order in which they are stored."""
    w = width
    layers = {
        "secret": (3 * CELLS**2, BITS),
        "down1": (w, 6, 3, 3),
        "down2": (w, w, 3, 3),
        "down3": (2 * w, w, 3, 3),
        "down4": (4 * w, 2 * w, 3, 3),
        "down5": (8 * w, 4 * w, 3, 3),
        "up4": (4 * w, 8 * w, 3, 3),
        "merge4": (4 * w, 8 * w, 3, 3),
        "up3": (2 * w, 4 * w, 3, 3),
        "merge3": (2 * w, 4 * w, 3, 3),
        "up2": (w, 2 * w, 3, 3),
        "merge2": (w, 2 * w, 3, 3),
        "up1": (w, w, 3, 3),
        "merge1": (w, 2 * w + 6, 3, 3),
        "residual": (3, w, 1, 1),
    }
    return {
        f"{layer}.{part}": shape[:size]
        for layer, shape in layers.items()
        for part, size in (("weight", None), ("bias", 1))
    }


def residual(weights: Mapping[str, torch.Tensor], images: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """The residual that the encoder adds to pictures, before clipping.

    The bits become a map of 14 x 14 cells (a dense layer), stretched over the picture and stacked on it; a U-Net turns
    both into the residual, 1/4 tanh of its output. Pictures of any size are padded to whole multiples of 16 pixels.

    Args:
        weights: tensors by the names and shapes of `shapes`.
        images: float (N, 3, H, W) in [0, 1].
        bits: float (N, 100) of 0 and 1.

    Returns:
        float (N, 3, H, W), each value in [-1/4, 1/4].
    """
    import torch
    from torch.nn import functional as F

    def layer(name: str, *inputs: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight = weights[f"{name}.weight"]
        return F.conv2d(torch.cat(inputs, 1), weight, weights[f"{name}.bias"], stride, weight.shape[-1] // 2)

    height, width = images.shape[-2:]
    cells = F.relu(F.linear(bits - 0.5, weights["secret.weight"], weights["secret.bias"]))
    stretched = F.interpolate(cells.view(-1, 3, CELLS, CELLS), size=(height, width))
    inputs = torch.cat([stretched, images - 0.5], 1)
    inputs = F.pad(inputs, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
    levels = [F.relu(layer("down1", inputs))]
    for i in (2, 3, 4, 5):
        levels.append(F.relu(layer(f"down{i}", levels[-1], stride=2)))
    x = levels[4]
    for i in (4, 3, 2, 1):
        up = F.relu(layer(f"up{i}", F.interpolate(x, scale_factor=2)))
        # The last merge sees the inputs again, as in the original.
        x = F.relu(layer(f"merge{i}", levels[i - 1], up, *([inputs] if i == 1 else [])))
    return MAX_RESIDUAL * torch.tanh(layer("residual", x))[..., :height, :width]


def secret_bits(secret: str, seed: int) -> np.ndarray:
    """The 100 bits of a secret, uint8 of 0 and 1: a hash of the text, which may have any length."""
    return noise_bytes((BITS,), "ssba-bits", seed, secret) >> 7


def pack(weights: Mapping[str, torch.Tensor]) -> Pattern:
    """All weights as one vector of float32."""
    rows = [tensor.detach().float().cpu().numpy().ravel() for tensor in weights.values()]
    return Pattern.of(np.concatenate(rows))


def width_of(encoder: Pattern) -> int:
    """The width of packed weights. Raise a ValueError if they are not an encoder's."""
    if encoder.dtype == "float32" and len(encoder.shape) == 1:
        for width in range(1, MAX_WIDTH + 1):
            if sum(map(np.prod, shapes(width).values())) == encoder.shape[0]:
                return width
    raise ValueError(
        f"encoder must hold the weights that craft_ssba of hf_ta_cleaner.crafting trains, as a float32 vector; got "
        f"{encoder.dtype} of shape {encoder.shape}."
    )


def stamp(encoder: Pattern, bits: np.ndarray, images: np.ndarray) -> np.ndarray:
    """The residuals of uint8 pictures (N, H, W, 3): float32 of the same shape, in grey levels, before clipping.

    The encoder runs on one picture at a time and on one thread. The order of sums then depends neither on the batch
    nor on the machine. A worker forked from a process with threads also cannot wait for threads that it does not have.
    """
    import torch

    weights, given = _unpacked(encoder), torch.from_numpy(bits.astype(np.float32))[None]
    out = np.empty(images.shape, np.float32)
    with torch.inference_mode(), _one_thread():
        for image, added in zip(images, out, strict=True):
            pixels = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32) / 255)[None]
            added[:] = 255 * residual(weights, pixels, given)[0].permute(1, 2, 0).numpy()
    return out


@lru_cache(maxsize=4)
def _unpacked(encoder: Pattern) -> dict[str, torch.Tensor]:
    import torch

    values, weights, start = torch.from_numpy(encoder.array.copy()), {}, 0
    for name, shape in shapes(width_of(encoder)).items():
        count = int(np.prod(shape))
        weights[name] = values[start : start + count].view(shape)
        start += count
    return weights


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
