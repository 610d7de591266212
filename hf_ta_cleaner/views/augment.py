"""Views of an image-caption pair: AutoAugment, noise and erasing for the image, EDA for the caption.

All are drawn from a generator that belongs to one sample, so that a view depends on (seed, epoch, sample) alone.
AutoAugment of tensor libraries draws one sub-policy per batch from a global generator; hence this one, in PIL.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ..subtexts import wordnet


# --- Images ----------------------------------------------------------------------------------------------------

_FILL = (128, 128, 128)


def _shear_x(image: Image.Image, level: float, sign: int) -> Image.Image:
    shear = (1, sign * 0.3 * level, 0, 0, 1, 0)
    return image.transform(image.size, Image.Transform.AFFINE, shear, Image.Resampling.BILINEAR, fillcolor=_FILL)


def _rotate(image: Image.Image, level: float, sign: int) -> Image.Image:
    return image.rotate(sign * 30 * level, Image.Resampling.BILINEAR, fillcolor=_FILL)


def _color(image: Image.Image, level: float, sign: int) -> Image.Image:
    return ImageEnhance.Color(image).enhance(1 + sign * 0.9 * level)


def _contrast(image: Image.Image, level: float, sign: int) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(1 + sign * 0.9 * level)


def _sharpness(image: Image.Image, level: float, sign: int) -> Image.Image:
    return ImageEnhance.Sharpness(image).enhance(1 + sign * 0.9 * level)


def _posterize(image: Image.Image, level: float, sign: int) -> Image.Image:
    return ImageOps.posterize(image, 8 - round(4 * level))


def _solarize(image: Image.Image, level: float, sign: int) -> Image.Image:
    return ImageOps.solarize(image, round(256 * (1 - level)))


def _auto_contrast(image: Image.Image, level: float, sign: int) -> Image.Image:
    return ImageOps.autocontrast(image)


def _equalize(image: Image.Image, level: float, sign: int) -> Image.Image:
    return ImageOps.equalize(image)


def _invert(image: Image.Image, level: float, sign: int) -> Image.Image:
    return ImageOps.invert(image)


#: name -> op(image, level in [0, 1], sign), over the paper's ranges of magnitudes.
OPERATIONS: dict[str, Callable[[Image.Image, float, int], Image.Image]] = {
    "shear_x": _shear_x,
    "rotate": _rotate,
    "color": _color,
    "contrast": _contrast,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "invert": _invert,
}

#: The 25 sub-policies that the paper learns on ImageNet (its appendix): two operations each, with probability and
#: magnitude in 0..9.
IMAGENET_POLICY: tuple[tuple[tuple[str, float, int], tuple[str, float, int]], ...] = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("color", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
    (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("color", 1.0, 2)),
    (("color", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
    (("color", 0.4, 0), ("equalize", 0.6, 3)),
    (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 5)),
    (("invert", 0.6, 4), ("equalize", 1.0, 8)),
    (("color", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
)


def augment_image(image: Image.Image, r: Random) -> Image.Image:
    """AutoAugment with the ImageNet policy (Cubuk et al. 2019, arXiv 1805.09501): one sub-policy at random.

    Args:
        image: RGB, any size.
        r: The sample's own generator.

    Returns:
        A new RGB image of the same size.
    """
    if image.mode != "RGB":
        raise ValueError(f"augment_image got a {image.mode} image; wanted RGB. Call image.convert('RGB') first.")
    for name, probability, magnitude in r.choice(IMAGENET_POLICY):
        # Both numbers are drawn always, so that what happens does not shift what is drawn next.
        chance, sign = r.random(), r.choice((-1, 1))
        if chance < probability:
            image = OPERATIONS[name](image, magnitude / 9, sign)
    return image.copy()


#: Erased squares take this share of a picture's area (PAR, arXiv 2412.00727).
ERASED_AREA = (0.005, 0.01)


def add_noise(pixels: np.ndarray, r: np.random.Generator, sigma: float = 0.2) -> np.ndarray:
    """Gaussian noise on the picture itself: added to pixels in [0, 1], clipped there, rounded back to 8 bits.

    Args:
        pixels: uint8 `(H, W, 3)`.
        r: The sample's own generator.
        sigma: Standard deviation before clipping; 0.2 as in PAR (Singh et al. 2024, arXiv 2412.00727).

    Returns:
        A new uint8 array of the same shape.
    """
    noise = r.standard_normal(pixels.shape, dtype=np.float32)
    return np.rint((pixels + 255 * sigma * noise).clip(0, 255)).astype(np.uint8)


def erase(pixels: np.ndarray, r: np.random.Generator) -> np.ndarray:
    """Random erasing as in PAR: a black square of 0.5-1% of the area, anywhere; uint8 `(H, W, 3)` to a new one."""
    height, width = pixels.shape[:2]
    side = max(1, round((r.uniform(*ERASED_AREA) * height * width) ** 0.5))
    top, left = r.integers(height - side + 1), r.integers(width - side + 1)
    pixels = pixels.copy()
    pixels[top : top + side, left : left + side] = 0
    return pixels


# --- Captions --------------------------------------------------------------------------------------------------

_WORD = re.compile(r"(\W*)(\w(?:.*\w)?|)(\W*)", re.DOTALL)
_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the and or but of to in on at by for with from as is are was were be been being am this that these those"
        " it its he she they his her their we you i my your our not no there here",
    )
)
#: Synonyms are listed by frequency of the sense; rarer ones are seldom what a caption means.
_SYNONYMS_CONSIDERED = 4


class _Word:
    """A word between its punctuation: `"(dog),"` is "(", "dog", "),"."""

    def __init__(self, token: str) -> None:
        self.before, self.core, self.after = _WORD.fullmatch(token).groups()  # type: ignore[union-attr]

    @property
    def text(self) -> str:
        return f"{self.before}{self.core}{self.after}"

    def synonyms(self) -> list[str]:
        plain = self.core.isalpha() and self.core.lower() not in _STOP_WORDS
        known = wordnet.synonyms(self.core.lower())[:_SYNONYMS_CONSIDERED] if plain else []
        return [synonym for synonym in known if synonym.islower()]  # "dog" is no "Canis familiaris" in a caption


def _replace(words: list[_Word], n: int, r: Random) -> list[_Word]:
    for word in r.sample(words, len(words)):
        synonyms = word.synonyms()
        if synonyms and n > 0:
            word.core = r.choice(synonyms)
            n -= 1
    return words


def _insert(words: list[_Word], n: int, r: Random) -> list[_Word]:
    for _ in range(n):
        known = (word.synonyms() for word in r.sample(words, len(words)))
        synonyms = next(filter(None, known), None)
        if synonyms:
            words.insert(r.randrange(len(words) + 1), _Word(r.choice(synonyms)))
    return words


def _swap(words: list[_Word], n: int, r: Random) -> list[_Word]:
    for _ in range(n):
        places = [i for i, word in enumerate(words) if word.core]
        i = r.choice(places)
        others = [j for j in places if words[j].core != words[i].core]
        if others:
            j = r.choice(others)
            words[i].core, words[j].core = words[j].core, words[i].core
    return words


def _delete(words: list[_Word], n: int, r: Random) -> list[_Word]:
    places = [i for i, word in enumerate(words) if word.core]
    if len(places) < 2:
        return words
    chance = n / len(places)
    gone = {i for i in places if r.random() < chance} or {r.choice(places)}
    if len(gone) == len(places):
        gone.remove(r.choice(places))
    return [word for i, word in enumerate(words) if i not in gone]


_EDITS = (_replace, _insert, _swap, _delete)


def augment_text(caption: str, r: Random, alpha: float = 0.1) -> str:
    """EDA (Wei & Zou 2019, arXiv 1901.11196): synonym replacement, insertion, swap or deletion, one of them at random.

    Punctuation stays where it is, numbers count as words, and an edit that finds nothing to change gives way to the
    next one. Without WordNet swap and deletion remain.

    Args:
        caption: Any text. One without letters comes back as it is.
        r: The sample's own generator.
        alpha: Share of the words to change, at least one; for deletion, the expected share.

    Returns:
        The changed caption with single spaces; never empty unless the caption was.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; wanted a share of words in [0, 1].")
    tokens = caption.split()
    if not any(character.isalpha() for character in caption):
        return caption
    n = max(1, int(alpha * len(tokens)))
    original = " ".join(tokens)
    for edit in r.sample(_EDITS, len(_EDITS)):
        changed = " ".join(word.text for word in edit([_Word(token) for token in tokens], n, r))
        if changed != original:
            return changed
    return caption
