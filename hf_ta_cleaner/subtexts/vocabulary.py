"""What the user's own captions talk about, and how to make a statement false with it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, chain, combinations, islice, pairwise
from math import log, sqrt
from random import Random
from typing import Any

from . import lexicon as lx
from . import wordnet
from .drafts import Draft, Skeleton, Slot, SubText, drafts_of, keeps, render, skeletons
from .parts import Parts, Phrase, Statement, normalize


#: A noun counts as going with another when captions name both this many times as often as chance would.
LIFT = 3.0
#: Expected meetings on one noun before "never met" counts as "exclude each other".
EXPECTED_MEETINGS = 3.0
#: So many falsified statements are looked at for one that reads as well as the true one.
CANDIDATES = 6
_TRIES = 24
#: Draws for one place of a statement; what a pair of words counts that never met.
_DRAWS, _UNSEEN = 3, 0.1


@dataclass(frozen=True)
class Pool:
    """Surface forms with their lemmas, drawn with the square root of their counts: frequent words lead, not alone."""

    items: tuple[tuple[str, str], ...]
    weights: tuple[float, ...]

    @classmethod
    def of(cls, counts: Counter[tuple[str, str]]) -> Pool:
        items = sorted(counts, key=lambda item: (-counts[item], item))
        return cls(tuple(items), tuple(accumulate(sqrt(counts[item]) for item in items)))

    def draw(self, r: Random, fits: Callable[[str, str], bool]) -> tuple[str, str] | None:
        """A (surface, lemma) that fits, or None when a fair number of draws brought none."""
        for _ in range(_TRIES if self.items else 0):
            item = r.choices(self.items, cum_weights=self.weights)[0]
            if fits(*item):
                return item
        return None


@dataclass
class Vocabulary:
    """Pools of nouns, attributes, verbs and relations, with what is known of which may be true together.

    Attributes:
        nouns: (is a place, form) -> pool; form is "a", "the", "" (no determiner) or "s" (plural).
        attributes: lemma -> count.
        relations: name -> pool of its phrases.
        verbs: (form, has an object) -> pool.
        captions: Number of captions read.
    """

    nouns: dict[tuple[bool, str], Pool]
    attributes: Counter[str]
    relations: dict[str, Pool]
    verbs: dict[tuple[str, bool], Pool]
    captions: int
    noun_counts: Counter[str]
    noun_pairs: dict[str, dict[str, int]]
    attribute_nouns: dict[str, Counter[str]]
    attribute_pairs: set[tuple[str, str]]
    verb_company: dict[str, set[str]]
    verb_pairs: set[tuple[str, str]]
    bigrams: Counter[tuple[str, str]]
    _attribute_pools: dict[str, Pool] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def from_parts(cls, rows: Iterable[dict[str, Any]]) -> Vocabulary:
        """Counts the rows that `SubTextMap` made. The order of the rows does not matter."""
        nouns: dict[tuple[bool, str], Counter] = defaultdict(Counter)
        verbs: dict[tuple[str, bool], Counter] = defaultdict(Counter)
        relations: dict[str, Counter] = defaultdict(Counter)
        noun_pairs: dict[str, Counter] = defaultdict(Counter)
        attribute_nouns: dict[str, Counter] = defaultdict(Counter)
        company: dict[str, set[str]] = defaultdict(set)
        attributes: Counter = Counter()
        noun_counts: Counter = Counter()
        attribute_pairs: set[tuple[str, str]] = set()
        verb_pairs: set[tuple[str, str]] = set()
        bigrams: Counter[tuple[str, str]] = Counter()
        captions = 0
        for row in rows:
            parts = Parts.from_row(row)
            captions += 1
            bigrams.update(pairwise(_words(parts.caption)))
            for phrase in parts.phrases:
                if phrase.lemma not in lx.VAGUE_NOUNS:
                    nouns[phrase.is_scene, _noun_form(phrase)][phrase.noun, phrase.lemma] += 1
                lemmas = sorted({attribute.lemma for attribute in phrase.attributes})
                attributes.update(lemmas)
                attribute_pairs.update(combinations(lemmas, 2))
                for lemma in lemmas:
                    attribute_nouns[lemma][phrase.lemma] += 1
            named = sorted({phrase.lemma for phrase in parts.phrases})
            noun_counts.update(named)
            for a, b in combinations(named, 2):
                noun_pairs[a][b] += 1
                noun_pairs[b][a] += 1
            for s in parts.statements:
                ends = {parts.phrases[i].lemma for i in (s.subject, s.object) if i >= 0}
                if s.verb:
                    verbs[s.form, s.object >= 0 and not s.relation][s.verb, s.verb_lemma] += 1
                    company[s.verb_lemma] |= ends
                if s.relation and s.relation_name in lx.CONTRADICTS:
                    relations[s.relation_name][s.relation, s.relation_name] += 1
            done = sorted({s.verb_lemma for s in parts.statements if s.verb})
            verb_pairs.update(combinations(done, 2))
        return cls(
            {key: Pool.of(counts) for key, counts in sorted(nouns.items())},
            attributes,
            {name: Pool.of(counts) for name, counts in sorted(relations.items())},
            {key: Pool.of(counts) for key, counts in sorted(verbs.items())},
            captions,
            noun_counts,
            {a: {b: n for b, n in met.items() if n >= 3} for a, met in noun_pairs.items()},
            dict(attribute_nouns),
            attribute_pairs,
            dict(company),
            verb_pairs,
            bigrams,
        )

    # --- Drawing ---------------------------------------------------------------------------------------------------

    def sub_texts(
        self,
        parts: Parts,
        r: Random,
        num_positive: int = 1,
        num_negative: int = 1,
        swap: tuple[str, ...] = ("noun", "relation", "attribute"),
        others: Sequence[Parts] = (),
    ) -> tuple[list[SubText], list[SubText]]:
        """True and falsified smaller statements of one caption.

        Args:
            parts: The parsed caption.
            r: The only source of chance.
            num_positive: How many true statements; fewer come back from a caption that has fewer.
            num_negative: How many falsified ones; fewer come back when no safe swap is found.
            swap: What may be swapped, any of "noun", "relation" (prepositions, verbs and postures) and "attribute".
                One is drawn for every negative; the others are tried when it finds nothing.
            others: Other captions of the same picture. No word of theirs is swapped in.

        Returns:
            (positives, negatives), each with distinct texts. A positive repeats the caption only when the caption is
            a single bare noun phrase. A negative differs from a true statement in exactly one part.
        """
        unknown = set(swap) - {"noun", "relation", "attribute"}
        if unknown:
            raise ValueError(f"swap holds {sorted(unknown)}; wanted any of 'noun', 'relation', 'attribute'.")
        frames = skeletons(parts)
        if not frames:
            return [], []
        drafts = drafts_of(parts, frames, r, num_positive)
        positives = [SubText.of(draft) for draft in drafts]
        seen = {parts.said.strip(), *(normalize(p.text) for p in positives)}
        negatives: list[SubText] = []
        for _ in range(num_negative):
            negative = self._negative(_with(parts, others), frames, drafts, r, swap, seen)
            if negative is not None:
                seen.add(normalize(negative.text))
                negatives.append(negative)
        return positives, negatives

    def _negative(
        self,
        parts: Parts,
        frames: list[Skeleton],
        drafts: list[Draft],
        r: Random,
        swap: tuple[str, ...],
        seen: set[str],
    ) -> SubText | None:
        for kind in r.sample(swap, len(swap)):
            found = list(islice(self._candidates(parts, frames, drafts, r, kind, seen), CANDIDATES))
            if found:
                fluent = [negative for negative, ahead in found if ahead >= 0]
                return r.choice(fluent) if fluent else max(found, key=lambda one: one[1])[0]
        return None

    def _candidates(
        self, parts: Parts, frames: list[Skeleton], drafts: list[Draft], r: Random, kind: str, seen: set[str]
    ) -> Iterator[tuple[SubText, float]]:
        """Statements falsified in one part of this kind, and how much better each reads than the true one."""
        chance = 0.9 if kind == "attribute" else 0.5
        fresh = [frame for frame in frames if kind in frame.offers]
        more = (keeps(parts, frame, r, chance) for frame in r.sample(fresh, min(4, len(fresh))))
        # The drawn positives first: a pair that differs in one word says most.
        for base in chain(r.sample(drafts, len(drafts)), more):
            places = [i for i, slot in enumerate(base) if slot.kind == kind]
            true = self.fluency(render(base)) if places else 0.0
            for i in r.sample(places, len(places)):
                for _ in range(_DRAWS):
                    swapped = self._swap(parts, base, base[i], r)
                    if swapped is None:
                        break
                    draft = (*base[:i], swapped, *base[i + 1 :])
                    text = render(draft)
                    if normalize(text) not in seen:
                        made = SubText.of(draft, swapped=swapped.text, original=base[i].text, kind=kind)
                        yield made, self.fluency(text) - true

    def fluency(self, text: str) -> float:
        """How much a lower-case text reads like the captions: the mean log of how often neighbouring words meet."""
        words = ["<", *text.split(), ">"]
        met = self.bigrams.get
        return sum(log(met(pair, 0) + _UNSEEN) for pair in pairwise(words)) / (len(words) - 1)

    def _swap(self, parts: Parts, base: Draft, slot: Slot, r: Random) -> Slot | None:
        def new(surface: str, lemma: str) -> bool:
            return lemma not in parts.words and f" {surface} " not in parts.said

        if slot.kind == "noun":
            found = self._noun(parts, parts.phrases[slot.source], r, new)
        elif slot.kind == "attribute":
            found = self._attribute(parts.phrases[slot.source], slot, r, new)
        else:
            statement = parts.statements[slot.source]
            found = self._verb(parts, statement, r, new) if slot.is_verb else self._relation(parts, statement, r, new)
        if found is None:
            return None
        words = found[1].split(" ") if slot.kind == "noun" else [found[1]]
        return slot.swapped(found[0], frozenset(words))

    def _noun(
        self, parts: Parts, phrase: Phrase, r: Random, new: Callable[[str, str], bool]
    ) -> tuple[str, str] | None:
        others = {p.lemma for p in parts.phrases} | parts.named
        senses = wordnet.supersenses(phrase.lemma)[:2]

        def false(surface: str, lemma: str) -> bool:
            if not new(surface, lemma) or not parts.words.isdisjoint(lemma.split(" ")):
                return False
            return not any(_same_thing(lemma, other) or self._go_together(lemma, other) for other in others)

        def alike(surface: str, lemma: str) -> bool:
            return bool(set(senses) & set(wordnet.supersenses(lemma)[:2])) and false(surface, lemma)

        fits = alike if senses else false  # without WordNet any false noun of its form will do

        form = _noun_form(phrase)
        order = {"a": ("a", "the"), "": ("", "the", "a"), "the": ("the", "a", ""), "s": ("s",)}[form]
        pools = [self.nouns[phrase.is_scene, key] for key in order if (phrase.is_scene, key) in self.nouns]
        if form == "the" and len(pools) > 1:
            pools.insert(0, pools.pop(r.randrange(len(pools))))
        for pool in pools:
            found = pool.draw(r, fits)
            if found:
                return found
        return None

    def _go_together(self, a: str, b: str) -> bool:
        """Whether captions that name one name the other far more often than chance: a swap may then be true."""
        met = self.noun_pairs.get(a, {}).get(b, 0)
        return met * self.captions > LIFT * self.noun_counts[a] * self.noun_counts[b]

    def _attribute(
        self, phrase: Phrase, slot: Slot, r: Random, new: Callable[[str, str], bool]
    ) -> tuple[str, str] | None:
        lemma = slot.text.split(" ")[-1]
        if lemma in lx.NUMBERS or lemma.isdecimal():
            return self._number(phrase, lemma, r, new)
        if lemma not in self._attribute_pools:
            self._attribute_pools[lemma] = Pool.of(
                Counter({(other, other): n for other, n in self.attributes.items() if self._exclude(lemma, other)})
            )
        return self._attribute_pools[lemma].draw(r, new)

    def _number(
        self, phrase: Phrase, lemma: str, r: Random, new: Callable[[str, str], bool]
    ) -> tuple[str, str] | None:
        value = lx.NUMBERS.get(lemma) or int(lemma)
        if value == 1 or not phrase.plural:
            return None
        said = [
            n for n in self.attributes if n.isdecimal() == lemma.isdecimal() and (n in lx.NUMBERS or n.isdecimal())
        ]
        fits = [(n, n) for n in sorted(said) if (lx.NUMBERS.get(n) or int(n)) not in (1, value) and new(n, n)]
        return r.choice(fits) if fits else None

    def _exclude(self, a: str, b: str) -> bool:
        """Whether two attributes are of one kind and cannot both be true of one thing."""
        if a in lx.ATTRIBUTE_PLACES or b in lx.ATTRIBUTE_PLACES:
            return lx.contradict(a, b, lx.ATTRIBUTE_PLACES)
        if a == b or tuple(sorted((a, b))) in self.attribute_pairs:
            return False
        if b in wordnet.antonyms(a):
            return True
        on_a, on_b = self.attribute_nouns.get(a, {}), self.attribute_nouns[b]
        shared = on_a.keys() & on_b.keys()
        meetings = sum(on_a[n] * on_b[n] / max(self.noun_counts[n], 1) for n in shared) if len(shared) >= 3 else 0.0
        return meetings >= EXPECTED_MEETINGS and not wordnet.related(a, b)

    def _relation(
        self, parts: Parts, statement: Statement, r: Random, new: Callable[[str, str], bool]
    ) -> tuple[str, str] | None:
        if parts.phrases[statement.subject].lemma == parts.phrases[statement.object].lemma:
            return None  # "an apple to the left of an apple" is true the other way round as well
        names = sorted(lx.CONTRADICTS.get(statement.relation_name, frozenset()) & self.relations.keys())
        for name in r.sample(names, len(names)):
            found = self.relations[name].draw(r, new)
            if found:
                return found
        return None

    def _verb(
        self, parts: Parts, statement: Statement, r: Random, new: Callable[[str, str], bool]
    ) -> tuple[str, str] | None:
        lemma, transitive = statement.verb_lemma, statement.object >= 0 and not statement.relation
        subject = parts.phrases[statement.subject]
        ends = {parts.phrases[i].lemma for i in (statement.subject, statement.object) if i >= 0}

        def fits(surface: str, other: str) -> bool:
            if not new(surface, other) or (subject.plural and " its " in f" {surface} "):
                return False
            if lemma in lx.VERB_PLACES or other in lx.VERB_PLACES:
                return lx.contradict(lemma, other, lx.VERB_PLACES)
            if {lemma, other} & lx.GENERIC_VERBS or tuple(sorted((lemma, other))) in self.verb_pairs:
                return False
            # Never said of these nouns: riding a sandwich. What has been said of them may be true here as well.
            return self.verb_company[other].isdisjoint(ends) and not wordnet.related(lemma, other)

        for form in dict.fromkeys((statement.form, *(("ing", "ed") if statement.form in ("ing", "ed") else ()))):
            if form != statement.form and lemma not in lx.VERB_PLACES:
                continue
            found = self.verbs.get((form, transitive), Pool((), ())).draw(r, fits)
            if found:
                return found
        return None


def _words(text: str) -> list[str]:
    """The words of a text in lower case, with a mark at both ends."""
    return ["<", *normalize(text).split(), ">"]


def _with(parts: Parts, others: Sequence[Parts]) -> Parts:
    """The parts of a caption that also know the words of the picture's other captions."""
    if not others:
        return parts
    words = parts.words.union(*(other.words for other in others))
    return replace(parts, words=words, named=frozenset(p.lemma for other in others for p in other.phrases))


def _noun_form(phrase: Phrase) -> str:
    if phrase.plural:
        return "s"
    if phrase.determiner in ("a", "an", "one", "another"):
        return "a"
    return "the" if phrase.determiner else ""


def _same_thing(a: str, b: str) -> bool:
    """Whether one thing could bear both names."""
    head_a, head_b = a.split(" ")[-1], b.split(" ")[-1]
    if head_a == head_b or lx.same_family(head_a, head_b):
        return True
    if all(noun in lx.PEOPLE or wordnet.is_kind_of(noun, "person") for noun in (head_a, head_b)):
        return frozenset((head_a, head_b)) not in lx.OPPOSITE_PEOPLE
    return wordnet.related(a, b) or (" " in f"{a}{b}" and wordnet.related(head_a, head_b))
