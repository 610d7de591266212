"""Caption -> chunks: noun phrases, verbs, relations and marks, in the order of the caption.

The tagger (`tokens.py`) learned from news, so the tables of `lexicon.py` come first: relations and postures of several
words, attributes, and nouns that it takes for something else.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

from . import lexicon as lx
from . import wordnet
from .parts import Attribute, Phrase
from .tokens import Token


_FORMS = {"VBG": "ing", "VBN": "ed", "VBZ": "s", "VBD": "past"}
#: Colors that are things when no noun follows.
_COLOR_NOUNS = frozenset({"orange", "lime", "plum", "peach", "rose", "olive", "violet", "gold", "silver"})


@dataclass
class Chunk:
    """One step of the reading.

    `kind`: N noun phrase, V verb, P predicate ("upside down"), R relation, S side ("to its left"), B copula,
    A attribute after a copula, C "and", K comma, O pronoun, NOT, X break. `name` is the lemma or the relation's name.
    """

    kind: str
    text: str = ""
    name: str = ""
    form: str = ""
    phrase: Phrase | None = None


@dataclass
class _Word:
    text: str
    is_noun: bool
    joined: bool
    plural: bool
    end: int


@cache
def _fixed_phrases() -> dict[str, list[tuple[tuple[str, ...], str]]]:
    """First word -> (words, kind) of the phrases that start with it, longest first."""
    kinds = (("R", lx.RELATION_PHRASES), ("P", lx.PREDICATES), ("S", lx.SIDES), ("F", lx.FRAMES))
    phrases = [(phrase.split(), kind) for kind, table in kinds for phrase in table]
    compounds = [phrase.split() for phrase in lx.COMPOUNDS]
    phrases += [(words, "N") for words in compounds] + [([*words[:-1], f"{words[-1]}s"], "N") for words in compounds]
    table: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for words, kind in sorted(phrases, key=lambda entry: -len(entry[0])):
        table.setdefault(words[0], []).append((tuple(words), kind))
    return table


def chunks(tokens: list[Token]) -> tuple[list[Chunk], set[str]]:
    """The chunks, and the lemmas of all content words, also of those that no chunk takes in."""
    chunker = _Chunker(tokens)
    i = 0
    while i < len(tokens):
        i += chunker.take_phrase(i) or chunker.take_word(i)
    chunker.close()
    return chunker.found, chunker.content


def _is_alive(noun: str, plural: bool) -> bool:
    """Whether a noun names a person or an animal."""
    lemma = lx.noun_lemma(noun, plural)
    return lemma in lx.PEOPLE or any(wordnet.is_kind_of(lemma, kind) for kind in ("person", "animal"))


class _Chunker:
    """Collects a noun phrase until something else comes."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.found: list[Chunk] = []
        self.content: set[str] = set()
        self._open()

    def _open(self) -> None:
        self.determiner = self.degree = ""
        self.words: list[_Word] = []
        self.start = -1
        self.negated = self.joined = False

    @property
    def last(self) -> str:
        """D after a determiner, A after an attribute, N after a noun, "" between noun phrases."""
        if self.words:
            return "N" if self.words[-1].is_noun else "A"
        return "D" if self.start >= 0 else ""

    # --- Taking in words -------------------------------------------------------------------------------------------

    def take_phrase(self, i: int) -> int:
        """The number of words of the fixed phrase at `i`, 0 when there is none."""
        for words, kind in _fixed_phrases().get(self.tokens[i].text, ()):
            end = i + len(words)
            if end > len(self.tokens) or any(self.tokens[i + k].text != words[k] for k in range(1, len(words))):
                continue
            phrase = " ".join(words)
            if kind == "N":
                plural = self.tokens[end - 1].tag == "NNS"
                self.content.update(lx.noun_lemma(phrase, plural).split(" "))
                self._add(self.tokens[i], phrase, is_noun=True, plural=plural, end=self.tokens[end - 1].end)
                return len(words)
            if kind == "F" and (self.last or (self.found and self.found[-1].kind != "X")):
                return 0  # "people looking at a dog": a frame only opens a clause
            if kind == "R" and len(words) == 1 and not self._is_relation(i):
                return 0
            self.close()
            if kind == "R":
                self.found.append(Chunk("R", phrase, lx.RELATION_PHRASES[phrase]))
            elif kind == "S":
                self.found.append(Chunk("S", lx.SIDES[phrase][1], lx.SIDES[phrase][0]))
            elif kind == "P":
                self.found.append(Chunk("P", phrase, *lx.PREDICATES[phrase]))
                if self.tokens[i].tag.startswith("VB"):
                    self.content.add(lx.verb_lemma(words[0]))
            return len(words)
        return 0

    def take_word(self, i: int) -> int:
        """Sorts one word in; returns how many words that took."""
        token = self.tokens[i]
        kind, text = self._classify(i), token.text
        if kind == "D":
            if self.words:
                self.close()
            self._begin(token)
            self.determiner = f"{self.determiner} {text}".strip()
        elif kind == "POSSESSIVE":
            self._into_determiner("'s", glue="")
        elif kind == "PARTITIVE":
            self._begin(token)
            self._into_determiner(f"{text} of", glue=" ")
            return 2
        elif kind == "NO":
            self.close()
            self._begin(token)
            self.negated = True
        elif kind == "DEGREE":
            self._begin(token)
            self.degree = f"{text} "
        elif kind == "JOIN":
            self.joined = text != ","
        elif kind == "A":
            self.content.add(text)
            if self.last == "N" and text in lx.SUFFIX_PARTICIPLES:  # "snow covered mountains"
                self.words[-1] = replace(self.words[-1], text=f"{self.words[-1].text} {text}", is_noun=False)
            else:
                if self.last == "N":
                    self.close()
                self._add(token, text)
        elif kind == "N":
            plural = self._is_plural(token)
            self.content.add(lx.noun_lemma(text, plural))
            self._add(token, text, is_noun=True, plural=plural)
        elif kind == "V":
            self.close()
            lemma = lx.verb_lemma(text)
            self.content.add(lemma)
            self.found.append(Chunk("V", text, lemma, _FORMS.get(token.tag, "base")))
        elif kind != "SKIP":
            self.close()
            self.found.append(Chunk(kind, text, text))
        return 1

    def _begin(self, token: Token) -> None:
        if self.start < 0:
            self.start = token.start

    def _add(self, token: Token, text: str, is_noun: bool = False, plural: bool = False, end: int = 0) -> None:
        self._begin(token)
        self.words.append(_Word(self.degree + text, is_noun, self.joined, plural, end or token.end))
        self.joined, self.degree = False, ""

    def _into_determiner(self, tail: str, glue: str) -> None:
        """What was collected names an owner or an amount: "the man's" hat, "a big group of" people."""
        head = " ".join([*filter(None, [self.determiner]), *(word.text for word in self.words)])
        self.determiner = f"{head}{glue}{tail}".strip()
        self.words = []

    def close(self) -> None:
        """Ends the noun phrase that is being collected."""
        phrase = self._phrase()
        if phrase is not None:
            self.found.append(Chunk("N", phrase=phrase))
        elif self.words and not self.negated and self.found and self.found[-1].kind == "B":
            self.found += [Chunk("A", word.text) for word in self.words]
        self._open()

    def _phrase(self) -> Phrase | None:
        words, nouns = list(self.words), []
        while words and words[-1].is_noun:
            nouns.insert(0, words.pop())
        if not nouns and words:  # "an orange", or a noun the tagger took for an adjective
            text = words[-1].text
            unknown = text not in lx.ATTRIBUTE_PLACES and text not in lx.NUMBERS
            untagged = unknown and self.determiner and not text.isdecimal()
            if untagged or (text in _COLOR_NOUNS and self._may_be_thing()):
                nouns.append(words.pop())
        while len(nouns) > 1 and nouns[-1].text in lx.PICTURE_NOUNS:  # "red car vector illustration"
            nouns.pop()
        while len(nouns) > 1 and nouns[0].text in lx.ATTRIBUTE_PLACES:  # "brick wall"
            words.append(nouns.pop(0))
        while nouns and words and words[-1].text in lx.PRIVATIVE:  # a toy car is no car
            nouns.insert(0, words.pop())
        if not nouns:
            return None
        nouns = nouns[-3:]
        noun = " ".join(word.text for word in nouns)
        counted = any(w.text in lx.NUMBERS or w.text.isdecimal() for w in words if w.text not in ("one", "1"))
        plural = nouns[-1].plural or counted  # "two sheep"
        attributes = tuple(Attribute(w.text, w.text.split(" ")[-1], w.joined and n > 0) for n, w in enumerate(words))
        return Phrase(
            determiner=self.determiner,
            attributes=attributes,
            noun=noun,
            lemma=lx.noun_lemma(noun, plural),
            plural=plural,
            seen=not self.negated,
            start=self.start,
            end=nouns[-1].end,
        )

    def _may_be_thing(self) -> bool:
        """Not so in "the cat is orange" and "a woman in orange"."""
        return bool(self.determiner) or not self.found or self.found[-1].kind not in ("B", "R")

    # --- What a word is --------------------------------------------------------------------------------------------

    def _is_plural(self, token: Token) -> bool:
        text = token.text
        if text in lx.PLURAL_ONLY or lx.IRREGULAR_NOUNS.get(text, text) != text:
            return True
        return token.tag in ("NNS", "NNPS", "VBZ") and not text.endswith("ss")

    def _after(self, i: int) -> Token:
        return self.tokens[i + 1] if i + 1 < len(self.tokens) else Token(".", ".", 0, 0)

    def _opens_noun(self, i: int) -> bool:
        """Whether the word at `i` may go on with a noun phrase that has begun."""
        if i >= len(self.tokens):
            return False
        text, tag = self.tokens[i].text, self.tokens[i].tag
        if text in lx.NOUN_MENDS or text in lx.ATTRIBUTE_PLACES or text in lx.NUMBERS:
            return True
        return tag[:2] in ("NN", "JJ") and text[0].isalpha() and text not in lx.DETERMINERS and text != "next"

    def _is_relation(self, i: int) -> bool:
        """Whether a preposition of one word is one: not so the "by" of "painted by", the "up" of "stands up"."""
        text, before, after = self.tokens[i].text, self.tokens[i - 1] if i else None, self._after(i)
        if text == "by":
            return before is None or before.tag not in ("VBN", "VBD") or before.text in ("parked", "seated")
        if text in lx.PARTICLES:
            return after.text in lx.DETERMINERS or after.tag[:2] in ("NN", "JJ", "CD", "VB", "PR")
        if text == "like":
            return self.tokens[i].tag == "IN" or before is None or before.tag[:2] != "PR"
        return text != "to" or after.tag[:2] != "VB"

    def _joins(self, i: int) -> bool:
        """Whether the comma or "and" at `i` stands between two attributes of one noun: "red and white", "big, red"."""
        j = i + 1
        while j < len(self.tokens) and (self.tokens[j].tag[:2] == "JJ" or self.tokens[j].text in lx.ATTRIBUTE_PLACES):
            j += 1
        if j == i + 1 or j >= len(self.tokens) or self.tokens[j].text == "to":
            return False
        if self.tokens[i - 1].text in lx.COLORS and self.tokens[i].text != ",":
            return self.tokens[i + 1].text in lx.ATTRIBUTE_PLACES and self._opens_noun(j)
        return self.tokens[j].tag[:2] == "NN" or self.tokens[j].text in lx.NOUN_MENDS

    def _classify(self, i: int) -> str:
        """The kind of one word: from the tables first, then from its tag and its neighbors."""
        token, after, last = self.tokens[i], self._after(i), self.last
        text, tag = token.text, token.tag
        if not text[0].isalnum():
            if text in (",", "&"):
                return "JOIN" if last == "A" and self._joins(i) else ("K" if text == "," else "C")
            if text == "'s":
                return "POSSESSIVE" if last == "N" and self._opens_noun(i + 1) else "B"
            return "X"
        if text == "and":
            return "JOIN" if last == "A" and self._joins(i) else "C"
        if text in lx.NEGATIONS:
            return "NO" if text in ("no", "neither") else "NOT"
        if text in ("who", "whom", "which") or (text == "that" and last == "N"):
            return "SKIP"
        if text in lx.PRONOUNS or (text in ("her", "one", "other", "others") and not self._opens_noun(i + 1)):
            return "O"
        if text in lx.DETERMINERS or (text == "one" and not self.determiner):
            return "D"
        if text in lx.COPULAS:
            return "B"
        if text in lx.AUXILIARIES:
            helps = after.tag[:2] == "VB" or after.text in lx.COPULAS or not text.startswith("ha")
            return "SKIP" if helps else "V"
        if text in lx.BREAKS:
            return "X"
        if text in lx.PARTITIVES and after.text == "of" and last != "N":
            return "PARTITIVE"
        if text in lx.DEGREES and (after.text in lx.COLORS or (tag == "RB" and after.tag == "JJ")):
            return "DEGREE"
        if text.isdecimal() or text in lx.NUMBERS:
            counts = (text in lx.NUMBERS or 1 < int(text) <= 12) and self._opens_noun(i + 1)
            return "A" if counts and last in ("", "D") else ("SKIP" if last else "X")
        return self._classify_content(i, last or (self.found[-1].kind if self.found else "X"))

    def _classify_content(self, i: int, before: str) -> str:
        """`before` is what the word follows: "D", "A", "N" inside a noun phrase, otherwise the last chunk's kind."""
        token, after = self.tokens[i], self._after(i)
        text, tag, noun_follows = token.text, token.tag, self._opens_noun(i + 1)
        if text in lx.NOUN_MENDS and (tag[:2] != "VB" or before in ("D", "A", "X", "R", "C", "K")):
            return "N"
        if text in lx.ATTRIBUTE_PLACES and (noun_follows or tag[:2] != "NN"):
            return "V" if tag[:2] == "VB" and before in ("N", "B") and not noun_follows else "A"
        if tag[:2] == "VB":
            return self._classify_verb(token, after, before, noun_follows)
        if tag[:2] == "JJ":
            return "SKIP" if before == "N" and not noun_follows else "A"
        follows_noun = before == "N" and self.tokens[i - 1].tag == "NN"
        if tag == "NNS" and follows_noun and after.text in lx.DETERMINERS:  # "a hydrant sprays the road"
            token.tag = "VBZ"
            return "V"
        takes_object = after.text in lx.DETERMINERS and (follows_noun or before in ("K", "C", "X"))
        if tag == "NN" and text.endswith("ing") and (before == "B" or takes_object):  # "a girl painting a wall"
            token.tag = "VBG"
            return "V"
        if tag[:2] in ("NN", "FW"):
            return "V" if self._does(i, before, noun_follows) else "N"
        return "SKIP" if tag[:2] in ("RB", "RP", "UH", "EX", "PD") else "X"

    def _does(self, i: int, before: str, noun_follows: bool) -> bool:
        """Whether a word that is tagged as a noun says what the noun before it does: "a dog jumps", "a man drinking".

        WordNet decides: how often the word is a verb, and whether the noun before it is somebody. Writes the tag.
        """
        token, share = self.tokens[i], wordnet.verb_share(self.tokens[i].text)
        if before not in ("N", "B", "K", "C") or not share or noun_follows:
            return False
        plural = bool(self.words) and self.words[-1].plural
        alive = before == "N" and _is_alive(self.words[-1].text, plural)
        if token.text.endswith("ing") and len(token.text) > 4:
            token.tag = "VBG"
            return share > 0.5 or alive
        agrees = (token.tag == "NNS") != plural
        if before != "N" or not (share >= 0.8 or (agrees and share >= (0.4 if alive else 0.55))):
            return False
        token.tag = "VBZ" if token.tag == "NNS" else "VBP"
        return True

    def _classify_verb(self, token: Token, after: Token, before: str, noun_follows: bool) -> str:
        text, tag = token.text, token.tag
        participle = tag in ("VBG", "VBN", "VBD")
        if before in ("D", "A"):
            if participle and noun_follows:
                return "A"
            in_color = before == "A" and not self.determiner and self.words[-1].text in lx.COLORS
            finite = tag == "VBZ" and in_color  # "a boy in white looks up"
            return "V" if finite or (participle and before == "A") else "N"
        if before == "N":
            return "A" if noun_follows and text in lx.SUFFIX_PARTICIPLES else "V"
        opens = before in ("X", "C", "K")
        if tag == "VBZ":
            return "V" if before in ("B", "O") or (before in ("C", "K") and after.text in lx.DETERMINERS) else "N"
        if not participle:
            if text in lx.GENERIC_VERBS:
                return "V"
            return "N" if before == "R" or (opens and after.text in (".", ",", "and", "of")) else "V"
        if noun_follows and (before == "R" or (opens and (tag != "VBG" or lx.verb_lemma(text) in lx.INTRANSITIVE))):
            return "A"  # "striped umbrella", "running dogs", but "riding horses"
        return "V"
