"""The parts of a caption: noun phrases and the statements that link them, as plain data that Arrow can store."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from .lexicon import EMPTY_RELATIONS, SCENE_NOUNS


_WORD = re.compile(r"[^\W_]+")


def normalize(text: str) -> str:
    """Lower-case words with single spaces and no punctuation: two texts with one `normalize` say the same words."""
    return " ".join(_WORD.findall(text.lower()))


@dataclass(frozen=True)
class Attribute:
    """A word in front of a noun. `joined` says that "and" stands before it: "red and white"."""

    text: str
    lemma: str
    joined: bool = False


@dataclass(frozen=True)
class Phrase:
    """One noun phrase.

    Attributes:
        determiner: "a", "the", "her", "a group of", or "".
        attributes: Adjectives, materials and numbers, in the order of the caption.
        noun: The head noun as it stands, compounds together: "fire hydrants".
        lemma: Singular of `noun`.
        plural: Whether the noun is plural.
        seen: Whether the thing is in the picture: not so for the hat of "a man without a hat".
        start, end: Where the phrase stands in the caption, in characters.
    """

    determiner: str
    attributes: tuple[Attribute, ...]
    noun: str
    lemma: str
    plural: bool
    seen: bool
    start: int
    end: int

    @property
    def is_scene(self) -> bool:
        """Whether the noun is a place or a ground ("grass", "kitchen") and not a thing."""
        return self.lemma.split(" ")[-1] in SCENE_NOUNS

    @property
    def words(self) -> frozenset[str]:
        """The lemmas of the noun, with every word of a compound."""
        return frozenset(self.lemma.split(" "))


@dataclass(frozen=True)
class Statement:
    """A noun phrase, what it does, and where or with what.

    Attributes:
        subject: Index of a phrase.
        verb: Verb or predicate as it stands, without auxiliaries: "standing", "lying on its side"; "" without one.
        verb_lemma: Its base form: "stand"; predicates of posture keep what they say: "on its side".
        form: "ing", "ed", "s", "base" or "past"; "" without a verb.
        relation: Preposition as it stands: "to the left of"; "" if there is none.
        relation_name: The name all phrases of one meaning share: "left of".
        object: Index of a phrase, -1 if there is none.
    """

    subject: int
    verb: str
    verb_lemma: str
    form: str
    relation: str
    relation_name: str
    object: int

    @property
    def words(self) -> frozenset[str]:
        """The lemma of the verb and the name of the relation."""
        relation = "" if self.relation_name in EMPTY_RELATIONS else self.relation_name
        return frozenset(filter(None, (self.verb_lemma, relation)))


@dataclass(frozen=True)
class Parts:
    """What a caption says, in parts. Made by `parse`; stored as a row of strings by `to_row`.

    Attributes:
        caption: The caption itself.
        phrases: Its noun phrases.
        statements: What it says of them.
        words: Lower-case content lemmas of the whole caption, the names of its relations and the names of the
            relations those entail. `sub_text.words <= parts.words` means that the sub-text is also true here.
        named: Lemmas of the nouns of the picture's other captions, where those are known.
    """

    caption: str
    phrases: tuple[Phrase, ...]
    statements: tuple[Statement, ...]
    words: frozenset[str]
    named: frozenset[str] = frozenset()

    @property
    def eligible(self) -> bool:
        """Whether a positive sub-text can be made: something that is in the picture is named."""
        return any(phrase.seen for phrase in self.phrases)

    @cached_property
    def said(self) -> str:
        """The caption as `normalize` has it, a space at both ends: `f" {word} " in parts.said`."""
        return f" {normalize(self.caption)} "

    def to_row(self) -> dict[str, str]:
        """Four strings whatever the caption, so that the Arrow schema never depends on what a batch holds."""
        return {
            "caption": self.caption,
            "words": json.dumps(sorted(self.words)),
            "phrases": json.dumps([asdict(phrase) for phrase in self.phrases]),
            "statements": json.dumps([asdict(statement) for statement in self.statements]),
        }

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Parts:
        """The inverse of `to_row`."""
        missing = [name for name in ("caption", "words", "phrases", "statements") if name not in row]
        if missing:
            raise ValueError(
                f"A row of parts needs caption, words, phrases and statements; got {sorted(row)}. "
                "Make the column with dataset.map(SubTextMap(), batched=True)."
            )
        phrases = tuple(
            Phrase(**{**phrase, "attributes": tuple(Attribute(**attribute) for attribute in phrase["attributes"])})
            for phrase in json.loads(row["phrases"])
        )
        statements = tuple(Statement(**statement) for statement in json.loads(row["statements"]))
        return cls(row["caption"], phrases, statements, frozenset(json.loads(row["words"])))
