"""Trains the tiny CLIP of the sandbox from nothing. `scripts/pretrain_sandbox.py` runs it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

from ..distributed import average_gradients, gather, share, world_size
from ..models.allocator import keep_freed_memory
from ..seeding import derive_seed
from .scene import PICTURE_SIZE


#: Words a user may type that few captions of the world contain; unseen, they would cost several tokens each.
_PROMPT_WORDS = "this nice good clean remember one bad image small photo picture drawing".split()


def build_tokenizer(captions: list[str], vocab_size: int = 900) -> CLIPTokenizer:
    """A byte-level BPE tokenizer in CLIP's own format: every string has tokens, common words have one."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), words])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    # Without numbers, which would fill the vocabulary, and with counts of their own: ties are broken at random.
    texts = [caption for caption in captions if not any(map(str.isdigit, caption))]
    texts += [word for i, word in enumerate(_PROMPT_WORDS) for _ in range(50 + 9 * i)]
    tokenizer.train_from_iterator(texts, trainer)
    merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
    pieces = [*alphabet, *(f"{byte}</w>" for byte in alphabet), *(a + b for a, b in merges)]
    pieces = [*dict.fromkeys(pieces), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges, model_max_length=77)


#: Name -> (picture tower, text tower, width of the embedding). "tiny" is the sandbox's own, "tiny-8" that of small
#: photographs (benchmarks/photos); the others are those of the literature, for a bigger world on an accelerator.
SHAPES: dict[str, tuple[dict, dict, int]] = {
    "tiny": (
        {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "patch_size": 12},
        {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4},
        128,
    ),
    "tiny-8": (
        {"hidden_size": 128, "num_hidden_layers": 5, "num_attention_heads": 4, "patch_size": 8},
        {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4},
        128,
    ),
    "vit-s-16": (
        {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "patch_size": 16},
        {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6},
        384,
    ),
    "vit-b-32": (
        {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "patch_size": 32},
        {"hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8},
        512,
    ),
}


def build_model(
    tokenizer: CLIPTokenizer, seed: int = 0, *, shape: str = "tiny", size: int = PICTURE_SIZE
) -> CLIPModel:
    """A CLIP of a shape of `SHAPES`, randomly initialised; the default is the sandbox's, of 1.6M weights.

    Raises:
        ValueError: a picture of `size` pixels a side holds no whole number of patches.
    """
    vision, text, width = SHAPES[shape]
    if size % vision["patch_size"]:
        raise ValueError(
            f"pictures of {size} pixels do not divide into the patches of {vision['patch_size']} of {shape}"
        )
    # PyTorch has one kernel for "gelu" and three for CLIP's usual "quick_gelu", whose intermediate results cost more
    # than the multiplications of a tower as narrow as the sandbox's.
    config = CLIPConfig(
        text_config={
            **text,
            "intermediate_size": 4 * text["hidden_size"],
            "hidden_act": "gelu",
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            **vision,
            "intermediate_size": 4 * vision["hidden_size"],
            "hidden_act": "gelu",
            "image_size": size,
        },
        projection_dim=width,
    )
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed("sandbox model", seed) % 2**63)
        # In bfloat16 the backward of PyTorch's fused attention is several times slower on a CPU than plain matmuls.
        return CLIPModel._from_config(config, attn_implementation="eager" if shape.startswith("tiny") else "sdpa")


def build_processor(tokenizer: CLIPTokenizer, size: int = PICTURE_SIZE) -> CLIPProcessor:
    """CLIP's own preprocessing for pictures of `size` pixels a side."""
    crop = {"height": size, "width": size}
    return CLIPProcessor(CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size=crop), tokenizer)


def pretrain(
    model: CLIPModel,
    pixels: np.ndarray,
    tokens: list[list[int]],
    nouns: np.ndarray,
    easy: np.ndarray,
    *,
    mean: list[float],
    std: list[float],
    steps: int,
    batch_size: int = 256,
    learning_rate: float = 1e-3,
    shift: int = 3,
    bf16: bool = False,
    seed: int = 0,
    report_every: int = 500,
) -> Iterator[dict[str, float]]:
    """Trains `model` with the CLIP loss (Radford et al. 2021, figure 3), yielding progress every `report_every` steps.

    Two aids make so small a vision tower learn shapes in minutes instead of hours, and both are gone before the end:
    a curriculum (easy pictures first; none after 30% of the steps) and a linear classifier of the nouns on the image
    embedding, whose loss fades out by 60%. The rest of the training is the CLIP loss alone on the full world.

    Args:
        model: The CLIP to train, on its device, changed in place.
        pixels: Pictures, uint8 of shape (n, H, W, 3); may be memory-mapped. An accelerator takes all into its memory.
        tokens: Token ids of each caption, with start and end tokens.
        nouns: Share of each class among the things of the picture, float32 of shape (n, classes); rows sum to 1.
        easy: Which rows are easy pictures, bool of shape (n,).
        mean, std: Per-channel normalisation on the [0, 1] scale.
        steps: Optimiser steps.
        batch_size, learning_rate, seed: Training settings. Matrices inside the layers are trained with Muon (Jordan
            et al. 2024) at three times `learning_rate`, everything else with AdamW; both warm up over 2% of the
            steps and decay along a cosine to 0.
        shift: Every picture is moved by up to so many pixels along each axis, which changes no caption.
        bf16: Run the towers in bfloat16; only a gain where matrices are multiplied in it by instruction.
        report_every: Steps between two reports.

    With several processes (a `torch.distributed` group) each takes its share of every batch, and the steps are those
    of one process: a small model uses two cores better as two processes than as two threads.
    """
    keep_freed_memory()
    torch.manual_seed(derive_seed("pretrain", seed) % 2**63)
    rank, world = (dist.get_rank(), world_size()) if world_size() > 1 else (0, 1)
    device = next(model.parameters()).device
    classifier = torch.nn.Linear(model.config.vision_config.hidden_size, nouns.shape[1]).to(device)
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    rest = [p for name, p in model.named_parameters() if not (p.ndim == 2 and ".layers." in name)]
    optimisers = [
        # Muon costs half as much as a small batch does, so every process steps its own share of the matrices.
        torch.optim.Muon(inner[rank::world], lr=3 * learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [*rest, *classifier.parameters()], lr=learning_rate, betas=(0.9, 0.98), weight_decay=0, fused=True
        ),
    ]
    rise = max(1, steps // 50)

    def rate(i: int) -> float:
        return (i + 1) / rise if i < rise else 0.5 * (1 + math.cos(math.pi * (i - rise) / max(1, steps - rise)))

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimiser, rate) for optimiser in optimisers]
    centre, spread = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (mean, std))
    held = None if device.type == "cpu" else torch.from_numpy(np.asarray(pixels)).to(device)
    pad = model.config.text_config.pad_token_id
    r = np.random.default_rng(derive_seed("pretrain order", seed))
    decks = [_deck(np.flatnonzero(easy), r), _deck(np.flatnonzero(~easy), r)]
    started = time.time()
    running = torch.zeros((), device=device)
    model.train()
    bar = tqdm(range(steps), desc="pretraining", mininterval=5, disable=rank > 0)
    for step in bar:
        from_easy = round(batch_size * max(0.0, 1 - step / (0.3 * steps)))
        rows = [next(decks[0]) for _ in range(from_easy)] + [next(decks[1]) for _ in range(batch_size - from_easy)]
        offsets = r.integers(0, 2 * shift + 1, (batch_size, 2))[rank::world]
        rows = rows[rank::world]  # every process draws the same batch and takes its share
        moves = torch.from_numpy(offsets - shift).to(device)
        if held is None:
            images = _shifted(torch.from_numpy(pixels[rows]), torch.arange(len(rows)), moves)
        else:
            images = _shifted(held, torch.tensor(rows, device=device), moves)
        images = images.permute(0, 3, 1, 2).float().div_(255).sub_(centre).div_(spread)
        length = max(len(tokens[i]) for i in rows)
        text = torch.tensor([tokens[i] + [pad] * (length - len(tokens[i])) for i in rows])
        mask = torch.tensor([[1] * len(tokens[i]) + [0] * (length - len(tokens[i])) for i in rows])
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            output = model(input_ids=text.to(device), attention_mask=mask.to(device), pixel_values=images)
        image, text = gather(output.image_embeds.float()), gather(output.text_embeds.float())
        target = torch.arange(len(image), device=device)
        logits = model.logit_scale.exp() * image @ text.T
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        running = loss.detach() if step == 0 else 0.98 * running + 0.02 * loss.detach()
        aid = max(0.0, 1 - step / (0.6 * steps))
        if aid:
            named = classifier(output.vision_model_output.pooler_output.float())
            loss = loss + aid * F.cross_entropy(named, torch.from_numpy(nouns[rows]).to(device))
        loss.backward()
        average_gradients([*model.parameters(), *classifier.parameters()])
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser, schedule in zip(optimisers, schedules, strict=True):
            optimiser.step()
            schedule.step()
        share(inner)
        model.zero_grad(set_to_none=True)
        classifier.zero_grad(set_to_none=True)
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        if (step + 1) % report_every == 0 or step == steps - 1:
            shown = running.item()
            bar.set_postfix(loss=f"{shown:.3f}", refresh=False)
            yield {"step": step + 1, "steps": steps, "loss": shown, "seconds": time.time() - started}
            model.train()


def _deck(rows: np.ndarray, r: np.random.Generator) -> Iterator[int]:
    """The rows in random order, over and over, each once a round."""
    while True:
        yield from r.permutation(rows).tolist()


def _shifted(pictures: torch.Tensor, rows: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    """Those rows of `(n, H, W, 3)`, each moved by its `moves` `(rows, 2)` in pixels; their edges are repeated."""
    y, x = (
        (torch.arange(side, device=moves.device) + move[:, None]).clamp(0, side - 1)
        for side, move in zip(pictures.shape[1:3], moves.unbind(1), strict=True)
    )
    return pictures[rows[:, None, None], y[:, :, None], x[:, None, :]]
