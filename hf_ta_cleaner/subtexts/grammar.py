"""Caption -> parts: who does what to whom, read from the chunks of a caption from left to right.

A link that could belong to two noun phrases is left out: a missing statement costs little, a wrong one teaches the
model something false.
"""

from __future__ import annotations

from dataclasses import replace

from . import lexicon as lx
from .chunks import Chunk, chunks
from .parts import Attribute, Parts, Phrase, Statement
from .tokens import tokenize


#: Relations after which "... holding a flag" is said of the nearer noun phrase.
_NEAR_LINKS = frozenset({"near", "left of", "right of", "above", "below", "behind", "in front of", "of", "and"})


def parse(caption: str | None) -> Parts:
    """The parts of a caption.

    Never fails: what cannot be read (other scripts, no letters, None) comes back without phrases, not `eligible`.
    """
    caption = caption or ""
    found, content = chunks(tokenize(caption))
    reader = _Reader()
    for chunk in found:
        reader.read(chunk)
    return reader.parts(caption, content)


class _Reader:
    """Keeps who is being talked about.

    `subjects` are the phrases the clause is about, `last` is the newest phrase and `link` the statement it came in
    with; `verb` and `relation` wait for their object, and `anchors` are the phrases they will be said of.
    """

    def __init__(self) -> None:
        self.phrases: list[Phrase] = []
        self.statements: list[Statement] = []
        self._new_clause()

    def _new_clause(self) -> None:
        self.subjects: list[int] = []
        self.anchors: list[int] = []
        self.last = -1
        self.link: Statement | None = None
        self.verb: Chunk | None = None
        self.relation: Chunk | None = None
        self.after_and = self.after_comma = self.after_copula = self.negated = False

    def _continue(self) -> None:
        self.after_and = self.after_comma = self.after_copula = False

    def read(self, chunk: Chunk) -> None:
        """One step."""
        if chunk.kind == "N":
            self._read_phrase(chunk.phrase)
        elif chunk.kind in ("V", "P"):
            self._read_verb(chunk)
        elif chunk.kind == "R":
            self._read_relation(chunk)
        elif chunk.kind == "O":
            self._read_pronoun(chunk)
        elif chunk.kind == "A":
            self._read_attribute(chunk)
        else:
            self._finish_verb()
            self.after_comma |= chunk.kind == "K"
            self.after_and |= chunk.kind == "C"
            self.after_copula |= chunk.kind == "B"
            if chunk.kind == "S":
                self._read_side(chunk)
            elif chunk.kind in ("X", "NOT"):
                self._new_clause()
            self.negated = chunk.kind == "NOT"

    # --- Verbs and relations: of whom are they said? ---------------------------------------------------------------

    def _read_verb(self, chunk: Chunk) -> None:
        self._finish_verb()
        finite = self.after_copula or (chunk.kind == "V" and chunk.form in ("s", "base", "past"))
        if not (finite or self.after_comma or self.after_and) and self.link and self.link.relation_name in _NEAR_LINKS:
            self.anchors = [self.last]
        else:
            self.anchors = list(self.subjects) if finite else self.subjects[-1:]
        self.verb = chunk
        self._continue()

    def _read_relation(self, chunk: Chunk) -> None:
        if self.verb is None:
            self.anchors = self._anchors_of(chunk)
        self.relation = chunk
        self._continue()

    def _anchors_of(self, relation: Chunk) -> list[int]:
        """The phrases a preposition belongs to; none when that is open."""
        link = self.link
        if link is None or self.after_comma or self.after_copula:
            return list(self.subjects)
        if relation.name == "of":
            return [self.last]
        if link.relation_name == "and":
            return [link.subject, self.last]
        if link.relation_name == "of":
            return [link.subject]
        if relation.name == "with" or not link.relation:
            return []  # "eating pizza on a plate", "riding a wave on a board"
        return self.subjects[-1:] if self.phrases[self.last].is_scene else [self.last]

    def _finish_verb(self) -> None:
        if self.verb is not None and self.relation is None:
            for anchor in self.anchors:
                self._state(anchor, self.verb, None, -1)
        self.verb = self.relation = None

    # --- Noun phrases ----------------------------------------------------------------------------------------------

    def _read_phrase(self, phrase: Phrase) -> None:
        verb, relation, before = self.verb, self.relation, self.last
        if self.negated or not phrase.seen:  # "a room with no people", "a dog not wearing a collar"
            self.verb = self.relation = None
            self._continue()
            return
        i = len(self.phrases)
        self.phrases.append(replace(phrase, seen=not (relation and relation.name in lx.UNSEEN_OBJECT)))
        if (
            before == i - 1
            and self._names_picture(before)
            and ((relation and relation.name == "of") or (verb and verb.name in lx.SHOWING))
        ):  # "a picture of a cat": the cat is what is talked about
            del self.phrases[before]
            self._new_clause()
            self.subjects, self.last = [before], before
            return
        link: Statement | None = None
        if verb or relation:
            # Where it is open what the verb or preposition belongs to, there is no anchor: a link from nowhere.
            for anchor in self._anchors_for(i) or [-1]:
                link = self._state(anchor, verb, relation, i)
        elif self.after_and and before >= 0:
            link = self._state(before, None, Chunk("R", "and", "and"), i)
            if before in self.subjects:
                self.subjects.append(i)
        elif not (self.after_copula and self.subjects):
            self.subjects = [i]
        self.last, self.link = i, link
        self.verb = self.relation = None
        self._continue()

    def _anchors_for(self, i: int) -> list[int]:
        """Of all anchors the last, but a ground is under everything the clause has named; no ground is on a ground."""
        scene, relation = self.phrases[i].is_scene, self.relation
        if self.verb is None and scene and relation and relation.name in lx.LOCATIVE:
            named = dict.fromkeys([*self.subjects, *self.anchors])
            return [n for n in named if not self.phrases[n].is_scene] or self.anchors
        return self.anchors[-1:] if self.verb is None and self.link is not None else self.anchors

    def _names_picture(self, i: int) -> bool:
        return i in self.subjects and self.phrases[i].lemma.split(" ")[-1] in lx.PICTURE_NOUNS

    def _read_attribute(self, chunk: Chunk) -> None:
        """ "The kettle is blue" makes a blue kettle."""
        for i in self.subjects:
            attribute = Attribute(chunk.text, chunk.text.split(" ")[-1])
            self.phrases[i] = replace(self.phrases[i], attributes=(*self.phrases[i].attributes, attribute))

    # --- Words that point back -------------------------------------------------------------------------------------

    def _read_pronoun(self, chunk: Chunk) -> None:
        if self.relation and self._comes_with() and chunk.text in ("it", "them", "him", "her"):
            relation, self.verb, self.relation = self.relation, None, None
            self._read_side(relation)
        else:
            self._finish_verb()
            self._new_clause()

    def _read_side(self, relation: Chunk) -> None:
        """ "A lamp with a mug to its left": the mug is to the left of the lamp."""
        if self._comes_with():
            self._state(self.last, None, relation, self.link.subject)

    def _comes_with(self) -> bool:
        return self.link is not None and self.link.subject >= 0 and self.link.relation_name in ("with", "and")

    # --- The result ------------------------------------------------------------------------------------------------

    def _state(self, subject: int, verb: Chunk | None, relation: Chunk | None, object: int) -> Statement:
        verb, relation = verb or Chunk(""), relation or Chunk("")
        statement = Statement(subject, verb.text, verb.name, verb.form, relation.text, relation.name, object)
        if subject >= 0 and subject != object and statement not in self.statements:
            self.statements.append(statement)
        return statement

    def parts(self, caption: str, content: set[str]) -> Parts:
        """What was read. Phrases that only name the picture ("a nice picture") are left out."""
        self._finish_verb()
        kept = [i for i, phrase in enumerate(self.phrases) if phrase.lemma not in lx.PICTURE_NOUNS or self._linked(i)]
        index = {old: new for new, old in enumerate(kept)} | {-1: -1}
        phrases = tuple(self.phrases[i] for i in kept)
        statements = tuple(replace(s, subject=index[s.subject], object=index[s.object]) for s in self.statements)
        words = content.union(*(phrase.words for phrase in phrases))
        words |= {attribute.lemma for phrase in phrases for attribute in phrase.attributes}
        for statement in statements:
            words |= statement.words | lx.ENTAILS.get(statement.relation_name, frozenset())
        return Parts(caption, phrases, statements, frozenset(words))

    def _linked(self, i: int) -> bool:
        return any(i in (statement.subject, statement.object) for statement in self.statements)
