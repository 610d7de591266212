"""Captions: a scene said in one of many ways, from a full sentence to a file name that says nothing."""

from __future__ import annotations

from random import Random

from ..seeding import rng
from .grounds import GROUNDS
from .scene import Scene, Thing


SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("big", "large", "huge")}
TEXTURE_WORDS = {"striped": ("striped",), "spotted": ("spotted", "dotted"), "checkered": ("checkered",)}
POSE_PARTICIPLES = {
    "upright": "standing",
    "leaning": "leaning",
    "lying": "lying on its side",
    "upside down": "upside down",
}
POSE_VERBS = {
    "upright": "stands",
    "leaning": "leans",
    "lying": "lies on its side",
    "upside down": "stands upside down",
}
RELATION_PHRASES = {
    "left of": ("to the left of", "left of", "on the left of"),
    "right of": ("to the right of", "right of", "on the right of"),
    "above": ("above", "above", "over"),
    "below": ("below", "under", "beneath"),
}
NEARNESS = ("next to", "near", "beside", "by")
SIDES = {"left of": "to its left", "right of": "to its right", "above": "above it", "below": "below it"}

_FRAMES = (
    "{}",
    "{}",
    "{}",
    "there is {}",
    "a picture of {}",
    "a photo of {}",
    "a drawing of {}",
    "we see {}",
    "here is {}",
    "look at {}",
)
_EMPTY = ("untitled", "image {}", "look at this", "what a nice picture", "no. {}", "another one", "{}.png")


def _article(phrase: str, r: Random) -> str:
    start = "an" if phrase[0] in "aeiou" else "a"
    return f"{r.choices((start, 'the', 'one'), (85, 11, 4))[0]} {phrase}"


def noun_phrase(thing: Thing, r: Random, *, detail: float = 0.55, article: bool = True) -> str:
    """One object in words: "a small blue striped kettle". Each attribute is said with probability `detail`."""
    words = []
    if thing.size in SIZE_WORDS and r.random() < detail:
        words.append(r.choice(SIZE_WORDS[thing.size]))
    marks = []
    if r.random() < detail + 0.1:
        marks.append(thing.colour)
    if thing.texture in TEXTURE_WORDS and r.random() < detail + 0.1:
        marks.append(r.choice(TEXTURE_WORDS[thing.texture]))
    if len(marks) == 2 and r.random() < 0.3:
        marks.reverse()
    phrase = " ".join([*words, *marks, thing.noun])
    return _article(phrase, r) if article else phrase


def _ground(scene: Scene, r: Random, chance: float) -> str:
    phrase = GROUNDS[scene.ground].phrase
    if not phrase:
        return " against a plain background" if r.random() < 0.1 else ""
    return f" {phrase}" if r.random() < chance else ""


def _single(scene: Scene, r: Random) -> str:
    thing, style = scene.things[0], r.random()
    if style < 0.10:  # bare words, as alt text often is
        return noun_phrase(thing, r, article=False)
    if style < 0.30:  # a sentence with a verb
        return f"{noun_phrase(thing, r)} {POSE_VERBS[thing.pose]}{_ground(scene, r, 0.7)}"
    pose = f" {POSE_PARTICIPLES[thing.pose]}" if r.random() < 0.3 else ""
    return r.choice(_FRAMES).format(f"{noun_phrase(thing, r)}{pose}{_ground(scene, r, 0.6)}")


def _pair(scene: Scene, r: Random) -> str:
    a, b = (0, 1) if r.random() < 0.6 else (1, 0)
    one, two = scene.things[a], scene.things[b]
    relation, style = scene.relation(a, b), r.random()
    ground = _ground(scene, r, 0.5)
    first, second = noun_phrase(one, r, detail=0.45), noun_phrase(two, r, detail=0.45)
    if style < 0.08:
        return r.choice(_FRAMES).format(f"{first} and {second}{ground}")
    if style < 0.18:
        return r.choice(_FRAMES).format(f"{first} {r.choice(NEARNESS)} {second}{ground}")
    if style < 0.28:
        return r.choice(_FRAMES).format(f"{first} with {second} {SIDES[scene.relation(b, a)]}{ground}")
    link = r.choice(RELATION_PHRASES[relation])
    if style < 0.48:
        verb = POSE_VERBS[one.pose] if r.random() < 0.6 else "is"
        return f"{first} {verb} {link} {second}{ground}"
    pose = f" {POSE_PARTICIPLES[one.pose]}" if r.random() < 0.25 else ""
    return r.choice(_FRAMES).format(f"{first}{pose} {link} {second}{ground}")


def caption(scene: Scene) -> str:
    """The caption of a scene: always true, seldom complete, the same at every call."""
    r = rng("caption", scene.seed)
    style = r.random()
    if style < 0.02:
        return r.choice(_EMPTY).format(r.randint(1, 9999))
    if len(scene.things) == 1:
        return _single(scene, r)
    if style < 0.12:  # only one of the two is mentioned
        return _single(Scene(scene.things[:1], scene.ground, scene.seed), r)
    return _pair(scene, r)
