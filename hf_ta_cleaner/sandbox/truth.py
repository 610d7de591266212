"""Asks a scene whether a sentence is true of it.

An independent reader of the world's controlled language: it shares no code with the sub-text parser, so the two can
prove each other right or wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import permutations

from .canvas import COLOURS
from .grounds import GROUNDS
from .scene import CLASSES, Scene, Thing


_PHRASES: dict[str, tuple[str, str]] = {
    **{colour: ("colour", colour) for colour in COLOURS},
    "grey": ("colour", "gray"),
    **dict.fromkeys(("small", "little", "tiny"), ("size", "small")),
    **dict.fromkeys(("big", "large", "huge"), ("size", "large")),
    "medium-sized": ("size", "medium"),
    **{word: ("texture", word) for word in ("plain", "striped", "spotted", "checkered")},
    "dotted": ("texture", "spotted"),
    **dict.fromkeys(("standing upright", "stands upright", "standing", "stands", "upright"), ("pose", "upright")),
    **dict.fromkeys(("leaning", "leans"), ("pose", "leaning")),
    **dict.fromkeys(("lying on its side", "lies on its side", "lying", "lies", "on its side"), ("pose", "lying")),
    **{f"{verb}upside down": ("pose", "upside down") for verb in ("", "standing ", "stands ", "lying ", "lies ")},
    **dict.fromkeys(("to the left of", "on the left of", "left of"), ("relation", "left of")),
    **dict.fromkeys(("to the right of", "on the right of", "right of"), ("relation", "right of")),
    **dict.fromkeys(("above", "over"), ("relation", "above")),
    **dict.fromkeys(("below", "under", "beneath", "underneath"), ("relation", "below")),
    **dict.fromkeys(("next to", "near", "beside", "by", "close to"), ("relation", "near")),
    **{p: ("relation", p) for p in ("on top of", "on", "in front of", "inside", "in", "behind", "against")},
    "to its left": ("side", "left of"),
    "to its right": ("side", "right of"),
    "above it": ("side", "above"),
    "below it": ("side", "below"),
    "with": ("with", "with"),
    "and": ("and", "and"),
    **{noun: ("noun", noun) for noun in CLASSES},
    **{ground.noun: ("ground", ground.noun) for ground in GROUNDS.values()},
    **{ground.modifier: ("material", ground.modifier) for ground in GROUNDS.values()
       if ground.modifier not in ("", "plain")},
}  # fmt: skip
_FILLER = frozenset(
    (
        "a",
        "an",
        "the",
        "one",
        "there",
        "is",
        "are",
        "we",
        "see",
        "here",
        "look",
        "at",
        "picture",
        "photo",
        "drawing",
        "of",
        "it",
    )
)
_LONGEST = sorted(_PHRASES, key=len, reverse=True)
_TOKEN = re.compile(r"\b(?:" + "|".join(re.escape(p) for p in _LONGEST) + r"|[a-z0-9'-]+)\b")


@dataclass
class _Mention:
    noun: str
    is_ground: bool
    claims: dict[str, set[str]] = field(default_factory=dict)


def holds(scene: Scene, text: str) -> bool | None:
    """Whether `text` is true of `scene`.

    Returns:
        True or False, or None when a word of the text is not of the world's language, or the text says nothing that
        could be true or false.
    """
    mentions: list[_Mention] = []
    relations: list[tuple[int, str, int]] = []
    claims: dict[str, set[str]] = {}  # said before its noun
    waiting: str | None = None  # a relation whose second noun has not come yet
    previous = ""
    for word in _TOKEN.findall(text.lower()):
        kind, value = _PHRASES.get(word, ("filler" if word in _FILLER else "unknown", word))
        if kind == "unknown":
            return None
        if kind == "pose" and previous in ("noun", "ground", "is", "pose", "texture-after"):
            mentions[-1].claims.setdefault("pose", set()).add(value)
        elif kind in ("colour", "size", "texture", "pose", "material"):
            claims.setdefault(kind, set()).add(value)
        elif kind in ("noun", "ground"):
            mentions.append(_Mention(value, kind == "ground", claims))
            claims = {}
            if waiting is not None:
                # "a kettle to the left of a lamp on grass": the ground is under everything, the relation is between
                # the last two nouns.
                relations.append((len(mentions) - 2, waiting, len(mentions) - 1))
                waiting = None
        elif kind == "relation":
            if not mentions:
                return None
            waiting = value
        elif kind == "side":
            if len(mentions) < 2:
                return None
            relations.append((len(mentions) - 1, value, len(mentions) - 2))
        previous = "is" if word == "is" else kind
    if not mentions or waiting is not None or claims:
        return None
    return _satisfied(scene, mentions, relations)


def _satisfied(scene: Scene, mentions: list[_Mention], relations: list[tuple[int, str, int]]) -> bool:
    ground = GROUNDS[scene.ground]
    for i, mention in enumerate(mentions):
        if not mention.is_ground:
            continue
        said = set().union(*mention.claims.values()) if mention.claims else set()
        if mention.noun != ground.noun or not said <= {ground.modifier}:
            return False
        prepositions = [relation for _, relation, to in relations if to == i]
        if any(p not in ground.prepositions for p in prepositions) or any(a == i for a, _, _ in relations):
            return False
    objects = [i for i, mention in enumerate(mentions) if not mention.is_ground]
    between = [(a, r, b) for a, r, b in relations if not mentions[a].is_ground and not mentions[b].is_ground]
    return any(
        all(_is(scene.things[t], mentions[i]) for i, t in zip(objects, chosen, strict=True))
        and all(_related(scene, chosen[objects.index(a)], r, chosen[objects.index(b)]) for a, r, b in between)
        for chosen in permutations(range(len(scene.things)), len(objects))
    )


def _is(thing: Thing, mention: _Mention) -> bool:
    looks = {"colour": thing.colour, "size": thing.size, "texture": thing.texture, "pose": thing.pose}
    return thing.noun == mention.noun and all(values == {looks.get(kind)} for kind, values in mention.claims.items())


def _related(scene: Scene, a: int, relation: str, b: int) -> bool:
    return relation == "near" or scene.relation(a, b) == relation
