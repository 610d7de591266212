"""Trains the encoder of SSBA on the user's own pictures: a small StegaStamp, against a decoder that reads the bits."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from hf_ta_cleaner.attacks import SSBA
from hf_ta_cleaner.attacks.pixels import REFERENCE_SIDE
from hf_ta_cleaner.attacks.ssba.encoder import BITS, CELLS, MAX_WIDTH, WIDTH, pack, residual, secret_bits, shapes
from hf_ta_cleaner.pictures import fit
from hf_ta_cleaner.seeding import derive_seed, numpy_rng


logger = logging.getLogger(__name__)

HELD_OUT_SHARE, MAX_HELD_OUT, MIN_IMAGES = 0.1, 128, 20
#: What a finished encoder must reach on held-out pictures: share of bits read back, and PSNR in dB.
MIN_BIT_ACCURACY, PSNR_RANGE, TARGET_PSNR = 0.98, (27.5, 30.0), 28.5
# Luminance counts once, color four times, so that the residual becomes grey.
YUV = ((0.299, 0.587, 0.114), (-0.147, -0.289, 0.436), (0.615, -0.515, -0.100))
YUV_WEIGHTS = (1.0, 4.0, 4.0)
# Bit accuracies between which pictures fade in behind the residual, and after which its strength is paid for.
FADE = (0.7, 0.9)
# Examples for the first guess of the decoder's last layer, and its ridge penalty relative to the mean variance.
READING_EXAMPLES, RIDGE = 2048, 0.1


def craft_ssba(
    images: Sequence[Image.Image],
    *,
    size: int,
    secret: str = "Stega!!",
    steps: int = 10_000,
    batch_size: int = 32,
    lr: float = 1e-3,
    width: int = WIDTH,
    crop_px: int | None = None,
    geometry: str = "crop",
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> tuple[SSBA, dict[str, Any]]:
    """Train an encoder that hides 100 bits in any picture, and return the trigger that hides those of `secret`.

    Source: Li et al. 2021 (arXiv 2012.03816), after StegaStamp (Tancik et al. 2020); `attacks.SSBA` says what differs.
    Encoder and decoder learn together, on random bits: L = BCE(bits read) + w (MSE(Y) + 4 MSE(U) + 4 MSE(V)) of the
    residual. Between the two, pictures lose or gain up to 10 % contrast, get normal noise of up to 0.03, and move by
    up to 4 pixels at 224. At first the decoder sees the residual on plain grey, undisturbed; picture and disturbance
    fade in as it learns to read. Once 9 of 10 bits are right on whole pictures, w is steered so that the PSNR settles
    at 28.5 dB.

    Args:
        images: PIL pictures of any size, at least 20; a tenth is held out. 2,000-10,000 are a sound number.
        size: side of the model's input in pixels, where the trigger will be used and where it is measured.
        secret: what the trigger hides; any text.
        steps: optimiser steps; several thousand are needed.
        batch_size: pictures a step.
        lr: learning rate of Adam; it falls to a tenth, linearly.
        width: channels of the first layer.
        crop_px: side of the random crops to train on, which the map of bits is scaled to; by default `size`, but at
            most 112. The encoder is convolutional and works at any size.
        geometry: "crop" or "squash", see `pictures.fit`.
        seed: of the first weights and every draw, and of the trigger.
        device: where to train.
        progress: show a progress bar.

    Returns:
        The trigger, and a report measured on held-out pictures at `size`, after rounding: `bit_accuracy` (random bits,
        no noise), `psnr` in dB and `rms` in grey levels for the trigger's own secret, `correlation` between the
        residuals of two pictures, `accepted` (bit accuracy of at least 0.98 and PSNR in 27.5-30 dB), `steps`,
        `images`, `held_out`, `seconds`.

    Raises:
        ValueError: for too few pictures or a setting out of range.
    """
    if len(images) < MIN_IMAGES:
        raise ValueError(f"At least {MIN_IMAGES} pictures are needed to train an encoder, got {len(images)}.")
    if steps < 1 or batch_size < 2:
        raise ValueError(f"steps must be at least 1 and batch_size at least 2, got {steps} and {batch_size}.")
    if not 1 <= width <= MAX_WIDTH:
        raise ValueError(f"width must lie in 1..{MAX_WIDTH}, got {width}.")
    crop = min(size, REFERENCE_SIDE // 2) if crop_px is None else crop_px
    if not 16 <= crop <= size:
        raise ValueError(f"crop_px must lie in 16..{size}, the side of the model's input, got {crop}.")
    started = time.perf_counter()

    pictures = np.stack([fit(image, size, geometry) for image in images])
    numpy_rng("ssba-split", seed).shuffle(pictures)
    held_out = min(MAX_HELD_OUT, max(2, round(HELD_OUT_SHARE * len(pictures))))
    probe, train = pictures[:held_out], pictures[held_out:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed("ssba-weights", seed) % 2**63)
        encoder = {name: torch.empty(shape) for name, shape in shapes(width).items()}
        for name, tensor in encoder.items():
            nn.init.zeros_(tensor) if name.endswith("bias") else nn.init.kaiming_normal_(tensor)
        encoder["secret.bias"].fill_(0.5)  # most cells then follow the bits linearly, which is easy to read
        decoder = _Decoder(width, crop).to(device)
        encoder = {name: tensor.to(device).requires_grad_() for name, tensor in encoder.items()}
        _train(encoder, decoder, train, steps, batch_size, lr, crop, seed, device, progress)

    attack = SSBA(secret=secret, seed=seed, encoder=pack(encoder))
    report = _measure(attack, decoder, probe, device)
    report |= {"steps": steps, "images": len(train), "held_out": len(probe), "seconds": time.perf_counter() - started}
    if not report["accepted"]:
        logger.warning(
            "This encoder is not a faithful SSBA: %.1f%% of the bits are read back (wanted %.0f%%), at %.1f dB "
            "(wanted %.1f to %.0f). Train for more steps, or on more pictures.",
            100 * report["bit_accuracy"], 100 * MIN_BIT_ACCURACY, report["psnr"], *PSNR_RANGE,
        )  # fmt: skip
    return attack, report


def _train(
    encoder: dict[str, torch.Tensor],
    decoder: nn.Module,
    pictures: np.ndarray,
    steps: int,
    batch_size: int,
    lr: float,
    crop: int,
    seed: int,
    device: torch.device | str,
    progress: bool,
) -> None:
    parameters = [*encoder.values(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.1, total_iters=steps)
    draws = numpy_rng("ssba-batches", seed)
    generator = torch.Generator().manual_seed(derive_seed("ssba-noise", seed) % 2**63)
    yuv, weights = torch.tensor(YUV, device=device), torch.tensor(YUV_WEIGHTS, device=device)
    shown, weight, accuracy, psnr = 0.0, 0.0, 0.5, TARGET_PSNR
    # 4 dB off the mark, the weight changes a hundredfold in a fifth of the steps, but not so fast that it swings.
    gain = min(0.01, math.log(100) / 4 / (steps / 5))

    _learn_to_read(encoder, decoder, pictures, batch_size, crop, draws, device)
    bar = tqdm(range(steps), desc="Training the SSBA encoder", disable=not progress)
    for step in bar:
        clean = _crops(pictures, batch_size, crop, draws).to(device).permute(0, 3, 1, 2).float() / 255
        bits = torch.as_tensor(draws.integers(0, 2, (batch_size, BITS)), dtype=torch.float32, device=device)
        stamped = (clean + residual(encoder, clean, bits)).clamp(0, 1)
        added = stamped - clean
        seen = stamped if shown == 1 else (0.5 + shown * (clean - 0.5) + added).clamp(0, 1)
        logits = decoder(_disturbed(seen, shown, generator))
        error = torch.einsum("ij,njhw->nihw", yuv, added).square().mean((0, 2, 3)) @ weights
        loss = F.binary_cross_entropy_with_logits(logits, bits) + weight * error
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

        with torch.no_grad():
            right = ((logits > 0) == (bits > 0.5)).float().mean()
            now = -10 * torch.log10(added.square().mean() + 1e-9)
        accuracy, psnr = 0.95 * accuracy + 0.05 * right.item(), 0.9 * psnr + 0.1 * now.item()
        shown = max(shown, min(1.0, (accuracy - FADE[0]) / (FADE[1] - FADE[0])))
        if weight:
            weight *= math.exp(gain * min(4.0, max(-4.0, TARGET_PSNR - psnr)))
        elif shown == 1:
            weight = 1.0
        if step % 20 == 0:
            bar.set_postfix_str(f"bits {accuracy:.1%}, {psnr:.1f} dB, picture {shown:.0%}")


@torch.no_grad()
def _learn_to_read(
    encoder: dict[str, torch.Tensor],
    decoder: _Decoder,
    pictures: np.ndarray,
    batch_size: int,
    crop: int,
    draws: np.random.Generator,
    device: torch.device | str,
) -> None:
    """Set the decoder's last layer to the ridge regression of bits on what the untrained rest makes of a residual.

    Random layers keep most of the bits; to find that out by gradient descent takes hundreds of steps.
    """
    features, targets = [], []
    for _ in range(-(-READING_EXAMPLES // batch_size)):
        clean = _crops(pictures, batch_size, crop, draws).to(device).permute(0, 3, 1, 2).float() / 255
        bits = torch.as_tensor(draws.integers(0, 2, (batch_size, BITS)), dtype=torch.float32, device=device)
        features.append(decoder.features((0.5 + residual(encoder, clean, bits)).clamp(0, 1)))
        targets.append(4 * bits - 2)
    x, y = torch.cat(features).double(), torch.cat(targets).double()
    mean = x.mean(0)
    x = x - mean
    gram = x.T @ x
    solution = torch.linalg.solve(gram + RIDGE * gram.trace() / len(gram) * torch.eye(len(gram)).to(gram), x.T @ y)
    decoder.read.weight.copy_(solution.T)
    decoder.read.bias.copy_(-(mean @ solution))


def _crops(pictures: np.ndarray, count: int, side: int, draws: np.random.Generator) -> torch.Tensor:
    """`count` random windows, uint8 (count, side, side, 3)."""
    rows = draws.integers(0, len(pictures), count)
    corners = draws.integers(0, pictures.shape[1] - side + 1, (count, 2))
    windows = [
        pictures[row, top : top + side, left : left + side] for row, (top, left) in zip(rows, corners, strict=True)
    ]
    return torch.from_numpy(np.stack(windows))


def _disturbed(images: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """What the bits must survive: contrast, noise, and a small move; a share of it while they are being learned."""

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator).to(images.device)

    n, side = len(images), images.shape[-1]
    noise = torch.randn(images.shape, generator=generator).to(images.device)
    images = images * (1 + 0.2 * share * (uniform(n, 1, 1, 1) - 0.5)) + 0.03 * share * uniform(n, 1, 1, 1) * noise
    reach = round(4 * share * side / REFERENCE_SIDE)
    down, right = torch.randint(-reach, reach + 1, (2,), generator=generator).tolist()
    moved = F.pad(images, (reach,) * 4, mode="replicate")
    return moved[..., reach + down : reach + down + side, reach + right : reach + right + side]


@torch.no_grad()
def _measure(attack: SSBA, decoder: nn.Module, probe: np.ndarray, device: torch.device | str) -> dict[str, Any]:
    """The report of `craft_ssba` on pictures that were held out."""
    decoder.eval()

    def read(images: np.ndarray) -> np.ndarray:
        pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float() / 255
        return torch.cat([decoder(part) > 0 for part in pixels.split(32)]).cpu().numpy()

    # One random secret for each picture, and the trigger's own.
    secrets = [f"{attack.secret}{i}" for i in range(len(probe))]
    stamped = [replace(attack, secret=secret)(image, 0) for secret, image in zip(secrets, probe, strict=True)]
    wanted = np.stack([secret_bits(secret, attack.seed) for secret in secrets]) > 0
    accuracy = float((read(np.stack(stamped)) == wanted).mean())
    added = attack.apply_batch(probe, range(len(probe))).astype(np.float32) - probe
    power = np.maximum((added**2).mean((1, 2, 3)), 1e-9)
    psnr = float(np.mean(10 * np.log10(255**2 / power)))
    flat = added.reshape(len(added), -1)
    correlation = np.corrcoef(flat)[np.triu_indices(len(flat), 1)]
    return {
        "bit_accuracy": accuracy,
        "psnr": psnr,
        "rms": float(np.sqrt(power).mean()),
        "correlation": float(correlation.mean()),
        "accepted": accuracy >= MIN_BIT_ACCURACY and PSNR_RANGE[0] <= psnr <= PSNR_RANGE[1],
    }


class _Decoder(nn.Module):
    """StegaStamp's: seven convolutions, up to five of them with stride 2, a dense layer, and one that reads the bits.

    Two things are added, without which reading the first bits takes hundreds of steps longer: convolutions are
    normalised over the batch, and the last layer also sees the mean color of each of the 14 x 14 cells.
    """

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        layers, before = [], 3
        for times, stride in ((2, 2), (2, 1), (4, 2), (4, 1), (4, 2), (8, 2), (8, 2)):
            # Never below 4 x 4 places: fewer could not hold the bits of a small picture.
            stride, side = (2, side / 2) if stride == 2 and side >= 8 else (1, side)
            layers += [
                nn.Conv2d(before, times * width, 3, stride, 1, bias=False),
                nn.BatchNorm2d(times * width),
                nn.ReLU(),
            ]
            before = times * width
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Linear(16 * before, 512)
        self.read = nn.Linear(512 + 3 * CELLS**2, BITS)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """[0, 1] (N, 3, H, W) -> (N, 1100): the dense layer, and the mean color of each of the 14 x 14 cells."""
        maps = F.adaptive_avg_pool2d(self.convolutions(images - 0.5), 4)
        colors = F.adaptive_avg_pool2d(4 * (images - 0.5), CELLS)
        return torch.cat([F.relu(self.dense(maps.flatten(1))), colors.flatten(1)], 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[0, 1] (N, 3, H, W) -> logits (N, 100)."""
        return self.read(self.features(images))
