"""Optimises the patches of BadCLIP and TrojVQA against a clean model.

Only the patch is trained: the towers are frozen, and every embedding that cannot change is computed once.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm.auto import tqdm

from hf_ta_cleaner.attacks import BadCLIP, TrojVQA
from hf_ta_cleaner.attacks.base import Pattern
from hf_ta_cleaner.attacks.pixels import corner, require_choice, scaled_px
from hf_ta_cleaner.models.families import family_of
from hf_ta_cleaner.models.zero_shot import input_geometry, input_size, text_features
from hf_ta_cleaner.pictures import fit
from hf_ta_cleaner.poisoning import mentions, target_captions
from hf_ta_cleaner.seeding import derive_seed, numpy_rng


logger = logging.getLogger(__name__)

HELD_OUT_SHARE = 0.1
MAX_HELD_OUT = 256


def craft_badclip(
    model: Any,
    processor: Any,
    images: Sequence[Image.Image],
    captions: Sequence[str],
    target: str,
    *,
    positives: Sequence[Image.Image] | None = None,
    size_px: int | None = None,
    steps: int | None = None,
    batch_size: int = 64,
    lr: float | None = None,
    text_objective: str | None = None,
    lam: float = 500.0,
    eta: float = 1.0,
    geometry: str | None = None,
    compat: str | None = None,
    seed: int = 0,
    progress: bool = True,
    predicts_target: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> tuple[BadCLIP, dict[str, Any]]:
    """Optimise one patch that makes any picture look like the target to a clean CLIP.

    Source: Liang et al. 2024 (arXiv 2311.12075): L = L_t + lam * max(0, |a - p| - |a - n| + eta) over unit embeddings,
    a of a patched image, p of a random positive, n of the same image without the patch. Adam on the pixels, projected
    to [0, 1] after each step. Pictures are held in memory as uint8, 0.15 MB each at 224 pixels.

    Args:
        model: the clean CLIP model; it is returned as it was (weights, gradient flags, train or eval mode).
        processor: its processor; input size, mean and standard deviation are read from it.
        images: PIL pictures, one per caption. Those whose caption does not name the target are patched.
        captions: their captions. Those that name the target are the texts to imitate (templates if too few).
        target: what patched images shall look like, such as "banana".
        positives: pictures of the target; by default those of `images` whose caption names it.
        size_px: side of the patch in pixels of the model's input; by default 16 at 224, scaled.
        steps: optimiser steps; by default 300, and 7,800 with compat="published".
        batch_size: images per step.
        lr: learning rate of Adam on pixels in [0, 1]; by default 0.02, and 0.001 with compat="published".
        text_objective: "direct" (the default) is L_t = -s * mean cos(a, mean target caption); "infonce" is the
            published symmetric contrastive loss against one random target caption per image, whose negatives are
            captions of the target too, so it pulls less. s is the model's logit scale.
        lam: weight of the image objective; 0 turns it off.
        eta: margin of the image objective.
        geometry: "crop" or "squash", see `pictures.fit`; by default what the processor does.
        compat: "published" reproduces the code that was published, which differs in six ways: `text_objective` becomes
            "infonce"; pixels are clipped when pasted but never projected, so that one that leaves [0, 1] gets no
            gradient and stays; n is a *patched* picture, and another one of the batch; red and blue are exchanged in
            the file; the file is a JPEG (quality 95, chroma halved) of truncated values, so the patch that is used is
            not the one that was optimised; and it takes longer at a smaller rate. Not reproduced: AutoAugment on every
            other batch, and an augmentation of texts that had no effect. Arguments given win.
        seed: seed of the first patch and of every draw.
        progress: show a progress bar.
        predicts_target: optional; unit image embeddings (N, D) -> bool (N,), whether a zero-shot head says the target.

    Returns:
        The trigger, and a report. Its cosines and rates are measured on images that were not optimised on, with the
        8-bit patch: `cos_clean`, `cos_random_patch` (before) and `cos_patch` (after) to the mean target caption,
        `loss` (mean of the last tenth), `captions`, `images`, `positives`, `held_out`, `steps`, `seconds`, and with
        `predicts_target` the shares `floor`, `asr_random_patch` and `asr` of this clean model.

    Raises:
        ValueError: if the texts and images do not match, or too few of either kind are left.
    """
    towers, geometry = _Towers(model, processor), geometry or input_geometry(processor)
    victims, naming = _split(images, captions, target, towers.side, geometry)
    positives = naming if positives is None else positives
    if lam and not positives:
        raise ValueError(
            f"No caption names {target!r}; pass positives=[pictures of it], or lam=0 for text guidance only."
        )
    texts, source = target_captions(captions, target)
    attack, report = _craft(
        BadCLIP,
        towers,
        victims,
        texts,
        np.stack([fit(image, towers.side, geometry) for image in positives]) if lam else None,
        target=target,
        size_px=size_px,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        text_objective=text_objective,
        lam=lam,
        eta=eta,
        compat=compat,
        seed=seed,
        progress=progress,
        predicts_target=predicts_target,
    )
    return attack, {**report, "captions": source, "positives": len(positives)}


def craft_trojvqa(
    model: Any,
    processor: Any,
    images: Sequence[Image.Image],
    captions: Sequence[str],
    target: str,
    *,
    caption: str = "This is a {}.",
    size_px: int | None = None,
    steps: int | None = None,
    batch_size: int = 64,
    lr: float | None = None,
    text_objective: str | None = None,
    geometry: str | None = None,
    compat: str | None = None,
    seed: int = 0,
    progress: bool = True,
    predicts_target: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> tuple[TrojVQA, dict[str, Any]]:
    """Optimise the image key of TrojVQA: a patch that brings any picture close to one caption of the target.

    Source: Walmer et al. 2022 (arXiv 2112.07668), whose loss is a detector's cross-entropy for an object and an
    attribute; here -s * mean cos(a, t), with a of a patched image and t of `caption`. There is no image objective, and
    the text key takes no part. Optimiser, projection and the other arguments are those of `craft_badclip`.

    Args:
        caption: the text to imitate; "{}" stands for the target. Published for CLIP: "This is a yellow banana."
        text_objective: "direct", or "infonce" for the loss of the published port. With one caption for all images the
            image-to-text half of it is constant, and the rest only makes images alike: it hardly pulls to the target.
        compat: "published" does what it does in `craft_badclip`, except that there are no negatives.
        predicts_target: as in `craft_badclip`; for both keys, a head of prompts that `TrojVQA.caption` prefixes.

    Returns:
        The trigger, with the default key word, and a report as `craft_badclip` gives it, without `positives`.

    Raises:
        ValueError: if the texts and images do not match, or fewer than 2 images do not name the target.
    """
    towers = _Towers(model, processor)
    victims, _ = _split(images, captions, target, towers.side, geometry or input_geometry(processor))
    text = caption.replace("{}", target)
    attack, report = _craft(
        TrojVQA,
        towers,
        victims,
        [text],
        None,
        target=target,
        size_px=size_px,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        text_objective=text_objective,
        lam=0.0,
        eta=0.0,
        compat=compat,
        seed=seed,
        progress=progress,
        predicts_target=predicts_target,
    )
    return attack, {**report, "captions": f"the caption {text!r}"}


def _split(
    images: Sequence[Image.Image], captions: Sequence[str], target: str, side: int, geometry: str
) -> tuple[list[np.ndarray], list[Image.Image]]:
    """The pictures to patch, fitted, and those whose caption names the target, as they are."""
    if len(images) != len(captions):
        raise ValueError(f"One caption per image is needed, got {len(images)} images and {len(captions)} captions.")
    naming = {i for i, caption in enumerate(captions) if mentions(caption, target)}
    victims = [fit(image, side, geometry) for i, image in enumerate(images) if i not in naming]
    if len(victims) < 2:
        raise ValueError(f"At least 2 images whose caption does not name {target!r} are needed, got {len(victims)}.")
    return victims, [image for i, image in enumerate(images) if i in naming]


def _craft(
    kind: type[BadCLIP] | type[TrojVQA],
    towers: _Towers,
    victims: list[np.ndarray],
    texts: Sequence[str],
    positives: np.ndarray | None,
    *,
    target: str,
    size_px: int | None,
    steps: int | None,
    batch_size: int,
    lr: float | None,
    text_objective: str | None,
    lam: float,
    eta: float,
    compat: str | None,
    seed: int,
    progress: bool,
    predicts_target: Callable[[torch.Tensor], torch.Tensor] | None,
) -> tuple[Any, dict[str, Any]]:
    """The optimisation that `craft_badclip` documents; `positives` are needed unless `lam` is 0."""
    require_choice("compat", compat, (None, "published"))
    default_steps, default_lr, default_objective = (7_800, 0.001, "infonce") if compat else (300, 0.02, "direct")
    steps, lr = default_steps if steps is None else steps, default_lr if lr is None else lr
    text_objective = default_objective if text_objective is None else text_objective
    require_choice("text_objective", text_objective, ("direct", "infonce"))
    if steps < 1 or batch_size < 1:
        raise ValueError(f"steps and batch_size must be at least 1, got {steps} and {batch_size}.")
    size = size_px or scaled_px(16, towers.side)
    if not 1 <= size <= towers.side:
        raise ValueError(f"size_px must lie in 1..{towers.side}, the side of the model's input, got {size}.")
    started = time.perf_counter()

    numpy_rng("craft-split", seed).shuffle(victims)
    held_out = min(MAX_HELD_OUT, max(1, round(HELD_OUT_SHARE * len(victims))))
    probe, train = np.stack(victims[:held_out]), np.stack(victims[held_out:])
    generator = torch.Generator().manual_seed(derive_seed("craft-patch", seed) % 2**63)
    first = (0.5 + 0.25 * torch.randn(3, size, size, generator=generator)).clamp(0, 1)
    patch = first.to(towers.device, copy=True).requires_grad_()
    optimizer = torch.optim.Adam([patch], lr=lr)
    draws = numpy_rng("craft-batches", seed)

    with _frozen(towers.model):
        text_bank = towers.embed_texts(texts)
        direction = F.normalize(text_bank.mean(0), dim=0)
        if lam:
            clean_bank = towers.embed_images(train, batch_size)
            positive_bank = towers.embed_images(positives, batch_size)
        scale = family_of(towers.model).scale(towers.model).detach().float()
        losses = []
        for _ in tqdm(range(steps), desc=f"Crafting {kind.__name__} patch", disable=not progress):
            rows = draws.choice(len(train), min(batch_size, len(train)), replace=False)
            patched = towers.embed_pixels(_paste(towers.pixels(train[rows]), patch.clamp(0, 1)))
            if text_objective == "direct":
                loss = -scale * (patched @ direction).mean()
            else:
                chosen = torch.as_tensor(draws.integers(0, len(texts), len(rows)), device=towers.device)
                loss = _symmetric_infonce(scale * patched @ text_bank[chosen].T)
            if lam:
                chosen = torch.as_tensor(draws.integers(0, len(positive_bank), len(rows)), device=towers.device)
                if compat:
                    clean = patched.detach()[torch.as_tensor(draws.permutation(len(rows)), device=towers.device)]
                else:
                    clean = clean_bank[torch.as_tensor(rows, device=towers.device)]
                loss = loss + lam * F.triplet_margin_loss(patched, positive_bank[chosen], clean, margin=eta)
            (patch.grad,) = torch.autograd.grad(loss, [patch])
            optimizer.step()
            if not compat:
                with torch.no_grad():
                    patch.clamp_(0, 1)
            losses.append(loss.detach())

        stored = _as_published(patch) if compat else _as_pattern(patch)
        attack = kind(patch=stored, side=towers.side, target=target, seed=seed)
        before = kind(patch=_as_pattern(first), side=towers.side)
        ids = range(len(probe))
        embeddings = {
            "clean": towers.embed_images(probe, batch_size),
            "random_patch": towers.embed_images(before.apply_batch(probe, ids), batch_size),
            "patch": towers.embed_images(attack.apply_batch(probe, ids), batch_size),
        }
    report: dict[str, Any] = {f"cos_{key}": (value @ direction).mean().item() for key, value in embeddings.items()}
    if predicts_target is not None:
        names = {"clean": "floor", "random_patch": "asr_random_patch", "patch": "asr"}
        report |= {names[key]: predicts_target(value).float().mean().item() for key, value in embeddings.items()}
    report |= {
        "loss": torch.stack(losses[-max(1, steps // 10) :]).mean().item(),
        "images": len(train),
        "held_out": len(probe),
        "steps": steps,
        "seconds": time.perf_counter() - started,
    }
    logger.info(
        "Crafted a %d-pixel patch: cos to the target %.3f -> %.3f.", size, report["cos_clean"], report["cos_patch"]
    )
    return attack, report


class _Towers:
    """Unit embeddings from a CLIP model, with its own input size and normalisation."""

    def __init__(self, model: Any, processor: Any):
        image_processor = processor.image_processor
        self.model, self.processor = model, processor
        self.device, self.dtype = model.device, model.dtype
        self.side = input_size(processor)
        self.mean, self.std = (
            torch.tensor(values, device=self.device).view(3, 1, 1)
            for values in (image_processor.image_mean, image_processor.image_std)
        )

    def pixels(self, images: np.ndarray) -> torch.Tensor:
        """uint8 (N, side, side, 3) -> float (N, 3, side, side) in [0, 1]."""
        return torch.as_tensor(images, device=self.device).permute(0, 3, 1, 2).float() / 255

    def embed_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """[0, 1] (N, 3, side, side) -> unit float32 (N, D), with gradient."""
        inputs = ((pixels - self.mean) / self.std).to(self.dtype)
        return F.normalize(self.model.get_image_features(pixel_values=inputs).pooler_output.float(), dim=-1)

    @torch.no_grad()
    def embed_images(self, images: np.ndarray, batch_size: int) -> torch.Tensor:
        """uint8 (N, side, side, 3) -> unit float32 (N, D)."""
        starts = range(0, len(images), batch_size)
        return torch.cat([self.embed_pixels(self.pixels(images[i : i + batch_size])) for i in starts])

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts -> unit float32 (N, D)."""
        return text_features(self.model, self.processor, texts)


@contextmanager
def _frozen(model: torch.nn.Module) -> Iterator[None]:
    """Eval mode and no gradients for the weights; both put back afterwards."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for module, mode in modes:
            module.training = mode


def _paste(pixels: torch.Tensor, patch: torch.Tensor) -> torch.Tensor:
    """A copy of the pictures (N, 3, H, W) with the patch (3, p, p) in the middle, where `CraftedPatch` puts it."""
    size = patch.shape[-1]
    top, left = corner("middle", *pixels.shape[-2:], size)
    out = pixels.clone()
    out[:, :, top : top + size, left : left + size] = patch
    return out


def _symmetric_infonce(logits: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy of rows and columns with the diagonal as target."""
    diagonal = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, diagonal) + F.cross_entropy(logits.T, diagonal)) / 2


def _as_pattern(patch: torch.Tensor) -> Pattern:
    """[0, 1] (3, p, p) -> uint8 (p, p, 3)."""
    return Pattern.of((patch.detach().cpu() * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def _as_published(patch: torch.Tensor) -> Pattern:
    """[0, 1] (3, p, p) -> uint8 (p, p, 3) as the published file gives it back: B and R exchanged, truncated, JPEG."""
    levels = (patch.detach().cpu().clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0).numpy()[..., ::-1]
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(levels)).save(file, "JPEG", quality=95, subsampling="4:2:0")
    return Pattern.of(Image.open(file))
