"""Is a trigger on this picture? Screening of single pictures at test time, without another model or training.

The idea of BDetCLIP (Niu et al. 2024, arXiv 2405.15269): a clean picture fits prompts that describe its class and fits
less where the words around the class name are scrambled; a triggered picture is drawn to the target's name with any
words around it, so it hardly reacts. There a language model writes the two kinds of prompt; here they are templates
and the same words in random order with others mixed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..models.zero_shot import TEMPLATES, Template, check_classnames, image_features, prompt, text_features
from ..seeding import rng


#: Words that say nothing about a picture, to mix in.
FILLERS = ("or", "if", "was", "no", "very", "then", "such", "when", "but", "so", "any", "than", "only", "as", "yet")
PERTURBED = 8
"""Perturbed prompts for a class."""
MIN_CLEAN = 50


@dataclass(frozen=True)
class Screening:
    """What `Screen` says about N pictures.

    Attributes:
        labels: `(N,)` class ids, the zero-shot predictions.
        scores: `(N,)` how little each picture reacts to scrambled prompts; higher is more suspect.
        flagged: `(N,)` booleans, score above the threshold; None where there is no threshold.
    """

    labels: np.ndarray
    scores: np.ndarray
    flagged: np.ndarray | None


class Screen:
    """Scores pictures for carrying a trigger of this model.

    Args:
        classnames: what the pictures may show.
        templates: prompts as a zero-shot head has them.
        seed: seed of the scrambled prompts.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        processor,
        classnames: Sequence[str],
        *,
        templates: Sequence[Template] = TEMPLATES,
        seed: int = 0,
    ) -> None:
        self.model, self.processor = model, processor
        self.classnames = check_classnames(classnames)
        self.threshold: float | None = None
        whole = [[prompt(template, name) for template in templates] for name in self.classnames]
        broken = [
            [scrambled(texts[i % len(texts)], name, seed + i) for i in range(PERTURBED)]
            for texts, name in zip(whole, self.classnames, strict=True)
        ]
        self._benign, self._perturbed = self._means(whole), self._means(broken)

    def _means(self, prompts: list[list[str]]) -> torch.Tensor:
        """`(D, C)`: mean embedding of each class's prompts, not normalised, so that products are mean cosines."""
        features = text_features(self.model, self.processor, [text for own in prompts for text in own])
        return features.view(len(prompts), len(prompts[0]), -1).mean(dim=1).T

    def calibrate(self, images: np.ndarray, *, false_alarms: float = 0.05) -> float:
        """Set the threshold so that this share of clean pictures, uint8 `(N, S, S, 3)`, would be flagged.

        Raises:
            ValueError: fewer than `MIN_CLEAN` pictures, or a share outside (0, 1).
        """
        if len(images) < MIN_CLEAN or not 0 < false_alarms < 1:
            raise ValueError(
                f"A threshold needs at least {MIN_CLEAN} clean pictures and a share of false alarms in (0, 1), got "
                f"{len(images)} pictures and {false_alarms}."
            )
        self.threshold = float(np.quantile(self(images).scores, 1 - false_alarms, method="higher"))
        return self.threshold

    def __call__(self, images: np.ndarray) -> Screening:
        """Screen uint8 pictures `(N, S, S, 3)` at the model's input size (`zero_shot.input_size`)."""
        return self.judge(image_features(self.model, self.processor, images))

    def judge(self, features: torch.Tensor) -> Screening:
        """The same for pictures that were embedded already: `(N, D)`, normalised (`zero_shot.image_features`)."""
        benign, perturbed = features @ self._benign, features @ self._perturbed
        # How much the whole row of class similarities drops, as in the paper: summed over the classes.
        scores = (perturbed - benign).sum(dim=1).double().cpu().numpy()
        flagged = None if self.threshold is None else scores > self.threshold
        return Screening(benign.argmax(dim=1).cpu().numpy(), scores, flagged)


def screen(
    model: torch.nn.Module,
    processor,
    images: np.ndarray,
    classnames: Sequence[str],
    *,
    clean: np.ndarray | None = None,
    false_alarms: float = 0.05,
    templates: Sequence[Template] = TEMPLATES,
    seed: int = 0,
) -> Screening:
    """Screen pictures in one call; see `Screen`, which keeps its prompts for the next ones.

    Args:
        images: uint8 `(N, S, S, 3)` at the model's input size.
        clean: pictures believed clean, of the same kind, at least `MIN_CLEAN`; without them nothing is flagged.
    """
    screening = Screen(model, processor, classnames, templates=templates, seed=seed)
    if clean is not None:
        screening.calibrate(clean, false_alarms=false_alarms)
    return screening(images)


def auroc(positive, negative) -> float:
    """Probability that a positive scores higher than a negative, ties counted half (Mann and Whitney)."""
    positive, negative = np.asarray(positive, float), np.sort(np.asarray(negative, float))
    below = np.searchsorted(negative, positive, side="left")
    upto = np.searchsorted(negative, positive, side="right")
    return float((below + upto).mean() / (2 * len(negative)))


def auroc_interval(positive, negative, rounds: int = 2000) -> list[float]:
    """95% interval of `auroc`, by resampling both groups."""
    r, positive, negative = np.random.default_rng(0), np.asarray(positive, float), np.asarray(negative, float)
    resampled = [auroc(r.choice(positive, len(positive)), r.choice(negative, len(negative))) for _ in range(rounds)]
    return np.quantile(resampled, (0.025, 0.975)).tolist()


def scrambled(text: str, name: str, seed: int) -> str:
    """The prompt's words in random order with fillers among them; the class name stays whole."""
    r = rng("scrambled prompt", text, seed)
    name = name.replace("_", " ").strip()
    rest = text.replace(name, " ", 1).replace(".", " ").split()
    words = rest + r.sample(FILLERS, min(len(FILLERS), len(rest) + 2))
    r.shuffle(words)
    words.insert(r.randrange(len(words) + 1), name)
    return " ".join(words)
