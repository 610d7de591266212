"""Sub-texts before they are text: a draft is a row of slots, so that one part can be swapped and articles agree."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from random import Random

from . import lexicon as lx
from .parts import Parts, Phrase, normalize


_TRIES = 8


@dataclass(frozen=True)
class Slot:
    """One part of a draft.

    Attributes:
        kind: "determiner", "attribute", "noun" or "relation" (also verbs).
        text: How it is said.
        words: Its content lemmas.
        source: Index of the phrase it comes from; for a verb or relation, of the statement.
        joined: Whether "and" stands before it.
        is_verb: Whether it is a verb or a predicate.
    """

    kind: str
    text: str
    words: frozenset[str]
    source: int
    joined: bool = False
    is_verb: bool = False

    def swapped(self, text: str, words: frozenset[str]) -> Slot:
        """The same place with another word in it."""
        return replace(self, text=text, words=words)


Draft = tuple[Slot, ...]


@dataclass(frozen=True)
class SubText:
    """A smaller statement made from a caption.

    Attributes:
        text: The statement.
        words: Its content lemmas: nouns, attributes, verb and relation. A positive one is also true of another
            caption when `words <= parts_of_that_caption.words`.
        swapped: What was put in; None for a positive one.
        original: What stood there.
        kind: "noun", "relation" or "attribute"; None for a positive one.
    """

    text: str
    words: frozenset[str]
    swapped: str | None = None
    original: str | None = None
    kind: str | None = None

    @classmethod
    def of(
        cls, draft: Draft, swapped: str | None = None, original: str | None = None, kind: str | None = None
    ) -> SubText:
        return cls(render(draft), frozenset().union(*(slot.words for slot in draft)), swapped, original, kind)


@dataclass(frozen=True)
class Skeleton:
    """Which phrases and which links a sub-text takes; its attributes are drawn later."""

    weight: float
    subject: int
    statement: int = -1
    with_verb: bool = False
    with_relation: bool = False
    object: int = -1
    offers: frozenset[str] = frozenset({"noun"})


def skeletons(parts: Parts) -> list[Skeleton]:
    """Every true statement the caption contains, without choosing attributes. Weights prefer whole statements."""
    found: list[Skeleton] = []
    phrases = parts.phrases

    def add(weight: float, subject: int, **rest) -> None:
        ends = [i for i in (subject, rest.get("object", -1)) if i >= 0]
        offers = {"noun"} | ({"attribute"} if any(phrases[i].attributes for i in ends) else set())
        if rest:
            offers.add("relation")
        found.append(Skeleton(weight, subject, offers=frozenset(offers), **rest))

    for i, phrase in enumerate(phrases):
        if phrase.seen:
            weight = 2.0 if phrase.attributes else 1.0
            add(weight * (0.1 if phrase.lemma in lx.PART_NOUNS else 0.5 if phrase.is_scene else 1.0), i)
    for n, s in enumerate(parts.statements):
        if not phrases[s.subject].seen:
            continue
        verb, relation, link = bool(s.verb), bool(s.relation), {"statement": n, "object": s.object}
        bare = s.verb_lemma in lx.INTRANSITIVE or s.verb_lemma in lx.PREDICATE_LEMMAS
        if s.object < 0:
            add(2.0, s.subject, statement=n, with_verb=True)
            continue
        add(1.0 if s.relation_name == "and" else 4.0, s.subject, with_verb=verb, with_relation=relation, **link)
        if verb and relation and bare:
            add(1.0, s.subject, statement=n, with_verb=True)
            if s.relation_name in lx.LOCATIVE:
                add(2.0, s.subject, with_relation=True, **link)
    return found


def _phrase_slots(phrase: Phrase, i: int, r: Random, chance: float) -> list[Slot]:
    slots = [Slot("determiner", phrase.determiner, frozenset(), i)] if phrase.determiner else []
    kept = False
    for n, attribute in enumerate(phrase.attributes):
        if not attribute.joined:
            kept = r.random() < chance  # "red and white" stays together or goes together
        if kept:
            joined = attribute.joined and n > 0
            slots.append(Slot("attribute", attribute.text, frozenset({attribute.lemma}), i, joined))
    slots.append(Slot("noun", phrase.noun, phrase.words, i))
    return slots


def keeps(parts: Parts, frame: Skeleton, r: Random, chance: float = 0.5) -> Draft:
    """A draft in which each attribute is kept with this chance."""
    slots = _phrase_slots(parts.phrases[frame.subject], frame.subject, r, chance)
    if frame.statement >= 0:
        s = parts.statements[frame.statement]
        if frame.with_verb:
            slots.append(Slot("relation", s.verb, frozenset({s.verb_lemma}), frame.statement, is_verb=True))
        if frame.with_relation:
            words = frozenset() if s.relation_name in lx.EMPTY_RELATIONS else frozenset({s.relation_name})
            slots.append(Slot("relation", s.relation, words, frame.statement))
    if frame.object >= 0:
        slots += _phrase_slots(parts.phrases[frame.object], frame.object, r, chance)
    return tuple(slots)


def drafts_of(parts: Parts, frames: list[Skeleton], r: Random, count: int) -> list[Draft]:
    """Up to `count` true drafts with distinct texts, none of which repeats the caption if that can be helped."""
    drafts: list[Draft] = []
    seen = {parts.said.strip()}
    weights = [frame.weight for frame in frames]
    for _ in range(count * _TRIES):
        if len(drafts) == count:
            return drafts
        draft = keeps(parts, r.choices(frames, weights)[0], r)
        text = normalize(render(draft))
        if text not in seen:
            seen.add(text)
            drafts.append(draft)
    for frame in frames:  # little to choose from: go through all of it
        for chance in (0.0, 1.0):
            draft = keeps(parts, frame, r, chance)
            text = normalize(render(draft))
            if len(drafts) < count and text not in seen:
                seen.add(text)
                drafts.append(draft)
    if not drafts and count > 0:
        drafts.append(keeps(parts, next(frame for frame in frames if frame.statement < 0), r, 1.0))
    return drafts


_VOWEL_SOUND = re.compile(r"(?!uni(?!n)|use|usu|ute|eu|one\b|once|u-|ukulele)[aeiou]|hour|honest|heir|8|11\b|18\b")


def article(word: str) -> str:
    """ "a" or "an", by sound as far as spelling tells."""
    return "an" if _VOWEL_SOUND.match(word) else "a"


def render(draft: Draft) -> str:
    """The text of a draft, lower-case, with agreeing articles."""
    words: list[str] = []
    for n, slot in enumerate(draft):
        text = slot.text
        if text in ("a", "an"):
            text = article(draft[n + 1].text)
        if slot.joined and draft[n - 1].kind == "attribute":
            text = f"and {text}"
        words.append(text)
    return " ".join(words)
