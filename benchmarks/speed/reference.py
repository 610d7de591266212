"""A cleaning step written the way the published code does it: the same maths, none of the means to make it fast.

Every picture is opened once for each of its views and prepared alone through Pillow, texts are padded to 77 tokens,
every view passes a tower of its own, weights and arithmetic are float32, and AdamW is PyTorch's default. The draws are
those of the collator, so that the first loss of both is the same number (a test asserts it).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import normalize

from benchmarks.speed.worlds import opened
from hf_ta_cleaner.data.loading import to_rgb
from hf_ta_cleaner.losses import LOSSES, SubTexts, Views
from hf_ta_cleaner.pictures import fit
from hf_ta_cleaner.seeding import numpy_rng, rng
from hf_ta_cleaner.subtexts import Parts, SubText, Vocabulary
from hf_ta_cleaner.training.config import TACleanerConfig
from hf_ta_cleaner.training.embedding import standardise
from hf_ta_cleaner.training.perturbations import Perturbations
from hf_ta_cleaner.views.augment import add_noise, augment_image, augment_text, erase


def keeps_suspect(args: TACleanerConfig) -> bool:
    return bool(args.weights["repel"] or args.weights["distill"])


class Reference:
    """`step(rows)` takes one optimiser step and returns its loss.

    Args:
        model: A CLIP.
        processor: Its processor.
        args: The method's weights and views.
        vocabulary: For methods with sub-texts.
    """

    def __init__(self, model, processor, args: TACleanerConfig, vocabulary: Vocabulary | None) -> None:
        self.device = args.device
        self.model, self.processor, self.args, self.vocabulary = model.to(self.device), processor, args, vocabulary
        model.logit_scale.requires_grad_(args.train_logit_scale)
        self.suspect = copy.deepcopy(model).eval().requires_grad_(False) if keeps_suspect(args) else None
        self.perturbations, self.taken = Perturbations(args, processor.image_processor, args.draw_seed), 0
        decayed = {False: [], True: []}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                decays = parameter.ndim >= 2 and not ("embedding" in name and "patch_embedding" not in name)
                decayed[decays].append(parameter)
        groups = [
            {"params": decayed[True], "weight_decay": args.weight_decay},
            {"params": decayed[False], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=args.learning_rate)

    def step(self, rows: Sequence[dict[str, Any]]) -> torch.Tensor:
        self.model.train()
        self.optimizer.zero_grad()
        views = self.views(rows)
        loss = sum(weight * LOSSES[name](views) for name, weight in self.args.weights.items() if weight)
        loss.backward()
        self.perturbations.ascend()
        self.optimizer.step()
        self.taken += 1
        self.model.logit_scale.data.clamp_(0, 4.605170185988092)
        return loss.detach()

    def views(self, rows: Sequence[dict[str, Any]]) -> Views:
        pictures = [self.first_view(row) for row in rows]
        untouched = pixels = torch.stack([self.prepared(picture) for picture in pictures])
        noise, trigger = self.perturbations.noise, self.perturbations.trigger
        raw = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
        if noise is not None:
            raw = noise(raw, len(rows), self.taken)
            pixels = torch.stack([self.prepared(picture) for picture in raw.permute(0, 2, 3, 1).numpy()])
        if trigger is not None:
            normalised = partial(standardise, image_processor=self.processor.image_processor)
            pixels = trigger.attack(pixels.to(self.device), len(pixels), normalised, raw.to(self.device))
        texts = [row["caption"] for row in rows]
        found: dict[str, Any] = {"image": self.images(self.model, pixels), "text": self.texts(self.model, texts)}
        if self.args.weights["inmodal"]:
            second = torch.stack([self.second_view(row) for row in rows])
            rewritten = [augment_text(row["caption"], rng("text view", *self.key(row))) for row in rows]
            found["image_aug"] = self.images(self.model, second)
            found["text_aug"] = self.texts(self.model, rewritten)
        if self.args.weights["subtext"]:
            found["subtexts"] = self.subtexts(rows)
        if self.suspect is not None:
            with torch.no_grad():
                found["image_suspect"] = self.images(self.suspect, untouched)
                found["text_suspect"] = self.texts(self.suspect, texts)
        return Views(scale=self.model.logit_scale.exp(), **found)

    # ------------------------------------------------------------------ pictures, one by one
    def key(self, row: dict[str, Any]) -> tuple[int, int, int]:
        return self.args.seed, row["epoch"], row["sample_id"]

    def square(self, row: dict[str, Any]) -> np.ndarray:
        return fit(to_rgb(opened(row["image"]["bytes"])), self.processor.image_processor.crop_size["height"])

    def first_view(self, row: dict[str, Any]) -> np.ndarray:
        pixels, key = self.square(row), self.key(row)
        if rng("noise", *key).random() < self.args.image_noise:
            pixels = add_noise(pixels, numpy_rng("noise", *key), self.args.noise_sigma)
        if rng("erase", *key).random() < self.args.image_erase:
            pixels = erase(pixels, numpy_rng("erase", *key))
        return pixels

    def second_view(self, row: dict[str, Any]) -> torch.Tensor:
        image = augment_image(Image.fromarray(self.square(row)), rng("image view", *self.key(row)))
        return self.prepared(np.asarray(image))

    def prepared(self, pixels: np.ndarray) -> torch.Tensor:
        tools = self.processor.image_processor
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (tools.image_mean, tools.image_std))
        return (image - mean) / std

    # ------------------------------------------------------------------ towers, view by view
    def images(self, model, pixels: torch.Tensor) -> torch.Tensor:
        return normalize(model.get_image_features(pixel_values=pixels.to(self.device)).pooler_output, dim=-1)

    def texts(self, model, texts: Sequence[str]) -> torch.Tensor:
        tokens = self.processor.tokenizer(
            list(texts), padding="max_length", max_length=77, truncation=True, return_tensors="pt"
        ).to(self.device)
        return normalize(model.get_text_features(**tokens).pooler_output, dim=-1)

    # ------------------------------------------------------------------ sub-texts, sample by sample
    def subtexts(self, rows: Sequence[dict[str, Any]]) -> SubTexts:
        args = self.args
        chosen = [i for i, row in enumerate(rows) if row["chosen"]]
        drawn = []
        for i in chosen:
            parts = Parts.from_row(rows[i]["parts"])
            r = rng("sub-texts", *self.key(rows[i]))
            drawn.append(
                (parts, *self.vocabulary.sub_texts(parts, r, args.num_positive, args.num_negative, args.swaps))
            )
        device = self.device
        positive_valid = torch.tensor([[p < len(true) for p in range(args.num_positive)] for _, true, _ in drawn])
        negative_valid = torch.tensor([[n < len(false) for n in range(args.num_negative)] for _, _, false in drawn])
        also_true = torch.tensor(
            [
                [
                    [p >= len(true) or true[p].words <= other.words for other, _, _ in drawn]
                    for p in range(args.num_positive)
                ]
                for _, true, _ in drawn
            ]
        )
        captions = [rows[i]["caption"] for i in chosen]
        positive = [
            t for c, (_, true, _) in zip(captions, drawn, strict=True) for t in filled(true, args.num_positive, c)
        ]
        negative = [
            t for c, (_, _, false) in zip(captions, drawn, strict=True) for t in filled(false, args.num_negative, c)
        ]
        k = len(chosen)
        return SubTexts(
            self.texts(self.model, positive).view(k, args.num_positive, -1),
            self.texts(self.model, negative).view(k, args.num_negative, -1),
            torch.tensor(chosen, device=device),
            positive_valid.to(device),
            negative_valid.to(device),
            also_true.to(device),
        )


def filled(subtexts: Sequence[SubText], count: int, caption: str) -> list[str]:
    """The texts of all slots; an empty slot repeats the caption and is masked out."""
    return [subtext.text for subtext in subtexts] + [caption] * (count - len(subtexts))
