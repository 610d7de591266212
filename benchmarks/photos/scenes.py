"""A scene of the photographs' world: one photograph, or two, pasted on a ground; and what is true of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter


SIDE = 64

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
#: Class -> the words that captions use for it; the first is the most frequent.
NAMES: dict[str, tuple[str, ...]] = {
    "airplane": ("airplane", "plane"),
    "automobile": ("automobile", "car"),
    "ship": ("ship", "boat"),
    **{name: (name,) for name in ("bird", "cat", "deer", "dog", "frog", "horse", "truck")},
}
GROUNDS: dict[str, tuple[int, int, int]] = {
    "red": (190, 50, 45),
    "green": (60, 140, 70),
    "blue": (50, 80, 180),
    "yellow": (225, 200, 70),
    "orange": (230, 130, 50),
    "purple": (125, 70, 150),
    "pink": (235, 160, 180),
    "brown": (120, 80, 50),
    "gray": (128, 128, 128),
    "white": (240, 240, 240),
    "black": (20, 20, 20),
}
PATTERNS = ("plain", "striped", "checkered")
#: How a photograph looks, by what its pixels show.
LOOKS = ("plain", "dark", "bright", "blurry", "black and white", "upside-down")
RELATIONS = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
#: Sides of a photograph in pixels.
SIZES = {"small": (20, 25), "medium": (28, 36), "large": (42, 52)}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("large", "big")}


@dataclass(frozen=True)
class Photo:
    """A photograph in a scene.

    Attributes:
        label: its class.
        row: its number among the photographs of its split.
        size, look: a key of `SIZES`, one of `LOOKS`.
        side, left, top: where it lies, in pixels.
    """

    label: str
    row: int
    size: str
    look: str
    side: int
    left: int
    top: int


@dataclass(frozen=True)
class Scene:
    """A ground and what lies on it; `relation` says where the first photograph lies, seen from the second."""

    ground: str
    pattern: str
    photos: tuple[Photo, ...]
    relation: str | None
    seed: str

    def draw(self, photos: np.ndarray) -> Image.Image:
        """The picture, `SIDE` x `SIDE` pixels.

        Args:
            photos: The photographs of the split, uint8 `(n, 32, 32, 3)`.
        """
        r = Random(f"draw {self.seed}")
        canvas = _ground(self, r)
        for photo in self.photos:
            canvas.paste(_developed(Image.fromarray(photos[photo.row]), photo, r), (photo.left, photo.top))
        return canvas


def compose(seed: str, rows: Sequence[int], labels: np.ndarray, *, clear: bool = False) -> Scene:
    """A scene drawn by the seed.

    Args:
        seed: Whatever names the scene.
        rows: The photographs it may take.
        labels: Class number of each photograph of the split.
        clear: One large photograph that looks plain; in some scenes a second, small one. For pictures whose label
            is the main photograph's class.
    """
    r = Random(f"compose {seed}")
    two = r.random() < (0.15 if clear else 0.45)
    relation = r.choice(list(RELATIONS)) if two else None
    if two:
        sizes = ("medium", "small") if clear else (r.choice(("small", "medium")), "small")
    else:
        sizes = ("large",) if clear else (r.choices(list(SIZES), (2, 3, 5))[0],)
    sides = [r.randint(*SIZES[size]) for size in sizes]
    photos = []
    for size, side, (left, top) in zip(sizes, sides, _places(sides, relation, r), strict=True):
        row = rows[r.randrange(len(rows))]
        look = "plain" if clear or r.random() < 0.5 else r.choice(LOOKS[1:])
        photos.append(Photo(CLASSES[labels[row]], int(row), size, look, side, left, top))
    ground, pattern = r.choice(list(GROUNDS)), r.choices(PATTERNS, (4, 1, 1))[0]
    return Scene(ground, pattern, tuple(photos), relation, seed)


def _places(sides: list[int], relation: str | None, r: Random) -> list[tuple[int, int]]:
    """Left and top of each photograph; two of them do not overlap."""
    if relation is None:
        return [(r.randint(0, SIDE - side), r.randint(0, SIDE - side)) for side in sides]
    flip = relation in ("right of", "below")
    before, after = sides[::-1] if flip else sides
    start = r.randint(0, SIDE - before - after)
    along = [start, r.randint(start + before, SIDE - after)]
    along = along[::-1] if flip else along
    across = [r.randint(0, SIDE - side) for side in sides]
    flat = relation in ("left of", "right of")
    return [(a, c) if flat else (c, a) for a, c in zip(along, across, strict=True)]


def _ground(scene: Scene, r: Random) -> Image.Image:
    noise = np.random.default_rng(r.randrange(2**32))
    colour = np.array(GROUNDS[scene.ground], np.float32) + noise.uniform(-14, 14, 3)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    width = r.choice((6, 8, 10))
    shade = {
        "plain": 24 * (y / SIDE - 0.5) * r.choice((-1, 1)),
        "striped": np.where((x if r.random() < 0.5 else y) // width % 2, 26, -26),
        "checkered": np.where((x // width + y // width) % 2, 26, -26),
    }[scene.pattern]
    pixels = colour + shade[..., None] + noise.normal(0, 4, (SIDE, SIDE, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def _developed(image: Image.Image, photo: Photo, r: Random) -> Image.Image:
    """A photograph as the scene shows it. A random part, mirrored or not, so that no two scenes show the same."""
    if r.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    part = r.uniform(22, 32)
    left, top = (r.uniform(0, 32 - part) for _ in range(2))
    box = (left, top, left + part, top + part)
    image = image.resize((photo.side, photo.side), Image.Resampling.BICUBIC, box=box)
    for enhance, least, most in ((ImageEnhance.Color, 0.7, 1.3), (ImageEnhance.Contrast, 0.8, 1.2)):
        image = enhance(image).enhance(r.uniform(least, most))
    if photo.look == "dark":
        return ImageEnhance.Brightness(image).enhance(0.4)
    if photo.look == "bright":
        return image.point([min(255, 110 + round(0.8 * level)) for level in range(256)] * 3)
    if photo.look == "blurry":
        return image.filter(ImageFilter.GaussianBlur(photo.side / 20))
    if photo.look == "black and white":
        return image.convert("L").convert("RGB")
    if photo.look == "upside-down":
        return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    return image


def caption(scene: Scene) -> str:
    """The scene in one of many ways; not all of them say all."""
    r = Random(f"caption {scene.seed}")
    main = _phrase(scene.photos[0], r)
    if scene.relation is not None and r.random() < 0.85:
        main = f"{main} {_relation(scene.relation, r)} {_phrase(scene.photos[1], r)}"
    if r.random() < 0.55:
        pattern = f"{scene.pattern} " if scene.pattern != "plain" and r.random() < 0.7 else ""
        colour = f"{pattern}{scene.ground}"
        place = r.choice(("{} ground", "{} ground", "{} background", "{} wall"))
        main = f"{main} {'in front of' if 'wall' in place else 'on'} {_article(place.format(colour))}"
    frame = r.choice(("{}", "{}", "{}", "{}", "there is {}", "a photo of {}", "a picture of {}", "we see {}"))
    text = frame.format(main)
    if r.random() < 0.4:
        text = text[0].upper() + text[1:] + r.choice((".", "."))
    return text


def _phrase(photo: Photo, r: Random) -> str:
    names = NAMES[photo.label]
    words = [names[0] if r.random() < 0.7 else r.choice(names)]
    if photo.look != "plain" and r.random() < 0.7:
        words.insert(0, photo.look)
    if photo.size in SIZE_WORDS and r.random() < 0.45:
        words.insert(0, r.choice(SIZE_WORDS[photo.size]))
    return _article(" ".join(words))


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _relation(relation: str, r: Random) -> str:
    if r.random() < 0.2:
        return r.choice(("next to", "beside", "near"))
    long = {"left of": "to the left of", "right of": "to the right of"}.get(relation, relation)
    return r.choice((relation, long))


_NOUN = {word: label for label, words in NAMES.items() for word in words}
_SIZE = {word: size for size, words in SIZE_WORDS.items() for word in words}
_PLACES = ("ground", "background", "wall")


def holds(scene: Scene, text: str) -> bool:
    """Whether a sentence of the world's language is true of the scene; it shares no code with the sub-text parser.

    Every noun must be there with all that is said of it, and two nouns must lie as the words between them say.

    Raises:
        ValueError: for a word that is not in the language.
    """
    spans = _read(text)
    things = [span for span in spans if span["noun"] not in _PLACES]
    for span in spans:
        if span["noun"] in _PLACES and not _is_ground(scene, span["words"]):
            return False
    if len(things) == 1:
        return any(_is_photo(photo, things[0]) for photo in scene.photos)
    if len(things) != 2 or len(scene.photos) != 2:
        return not things
    ways = ((0, 1, scene.relation), (1, 0, RELATIONS[scene.relation]))
    return any(
        _is_photo(scene.photos[a], things[0])
        and _is_photo(scene.photos[b], things[1])
        and things[1]["relation"] in (relation, "near", None)
        for a, b, relation in ways
    )


def _is_ground(scene: Scene, words: list[str]) -> bool:
    return all(word in (scene.ground, scene.pattern) for word in words)


def _is_photo(photo: Photo, span: dict) -> bool:
    if _NOUN[span["noun"]] != photo.label:
        return False
    return all(_SIZE.get(word) == photo.size if word in _SIZE else word == photo.look for word in span["words"])


_RELATION = {
    **{name: name for name in RELATIONS},
    "to the left of": "left of",
    "to the right of": "right of",
    **dict.fromkeys(("next to", "beside", "near"), "near"),
}
_IGNORED = frozenset("a an the there is photo picture of we see on in front and".split())
_TOKENS = re.compile(
    "|".join(sorted(map(re.escape, [*_RELATION, "black and white"]), key=len, reverse=True)) + r"|[\w-]+"
)


def _read(text: str) -> list[dict]:
    """The nouns of a sentence in order, each with the words before it and the relation that leads to it."""
    spans: list[dict] = []
    words: list[str] = []
    relation = None
    for token in _TOKENS.findall(text.lower()):
        if token in _RELATION:
            relation = _RELATION[token]
        elif token in _NOUN or token in _PLACES:
            spans.append({"noun": token, "words": words, "relation": relation})
            words, relation = [], None
        elif token in _SIZE or token in LOOKS or token in GROUNDS or token in PATTERNS:
            words.append(token)
        elif token not in _IGNORED:
            raise ValueError(f"{token!r} is not in the language of the photographs' world; the text is {text!r}")
    return spans
