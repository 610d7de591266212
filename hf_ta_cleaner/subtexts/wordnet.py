"""WordNet, found offline, asked for synonyms, antonyms and relatives; without it every answer is "none known".

Looks in NLTK's data folders (`python -m nltk.downloader wordnet`) and where Linux distributions install the database
(Debian: `apt-get install wordnet-base`). The files (format: wndb(5WN)) are read here and not through NLTK, whose
reader wants a file that distributions leave out and refuses folders other than its own. Nothing is loaded before the
first question.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal


logger = logging.getLogger(__name__)

Pos = Literal["n", "v", "a", "r"]

#: Where distributions put the plain WordNet database.
SYSTEM_FOLDERS = ("/usr/share/wordnet", "/usr/local/share/wordnet", "/opt/homebrew/share/wordnet")

_FILES: dict[str, str] = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
#: Endings that WordNet's own morphology takes off (morphy(7WN)).
_ENDINGS: dict[str, tuple[tuple[str, str], ...]] = {
    "n": (("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"),
          ("ies", "y")),
    "v": (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "r": (),
}  # fmt: skip


@dataclass(frozen=True)
class Synset:
    """One sense: its supersense (number of a lexicographer file, lexnames(5WN)), its words and its pointers (symbol,
    part of speech, offset, word, other word)."""

    pos: str
    offset: int
    supersense: int
    words: tuple[str, ...]
    pointers: tuple[tuple[str, str, int, int, int], ...]

    def linked(self, *symbols: str) -> Iterator[tuple[str, int]]:
        """(part of speech, offset) of the synsets that pointers of these symbols lead to."""
        return ((pos, offset) for symbol, pos, offset, _, _ in self.pointers if symbol in symbols)


class Database:
    """The database files of one folder or of NLTK's `wordnet.zip`, each read when first needed."""

    def __init__(self, where: Path) -> None:
        self.where = where
        self._data: dict[str, bytes] = {}
        self._index: dict[str, dict[str, tuple[int, ...]]] = {}
        self._exceptions: dict[str, dict[str, str]] = {}
        self._counts: dict[str, dict[str, int]] | None = None

    def _read(self, name: str) -> bytes:
        if self.where.suffix == ".zip":
            with zipfile.ZipFile(self.where) as archive:
                return archive.read(f"wordnet/{name}")
        return (self.where / name).read_bytes()

    def index(self, pos: str) -> dict[str, tuple[int, ...]]:
        """Word -> offsets of its senses, most frequent first."""
        if pos not in self._index:
            entries = {}
            for line in self._read(f"index.{_FILES[pos]}").decode().splitlines():
                if not line.startswith(" "):
                    fields = line.split()
                    entries[fields[0]] = tuple(map(int, fields[-int(fields[2]) :]))
            self._index[pos] = entries
        return self._index[pos]

    def exceptions(self, pos: str) -> dict[str, str]:
        """Irregular form -> dictionary form."""
        if pos not in self._exceptions:
            lines = self._read(f"{_FILES[pos]}.exc").decode().splitlines()
            self._exceptions[pos] = {form: base for form, base, *_ in map(str.split, lines)}
        return self._exceptions[pos]

    def counts(self, pos: str) -> dict[str, int]:
        """Word -> how often its senses were tagged in WordNet's texts; empty where the list is not there."""
        if self._counts is None:
            self._counts = {name: {} for name in _FILES}
            try:
                lines = self._read("cntlist.rev").decode().splitlines()
            except (KeyError, OSError):
                lines = []
            kinds = {"1": "n", "2": "v", "3": "a", "4": "r", "5": "a"}
            for key, _, count in (line.split() for line in lines):
                word, _, rest = key.partition("%")
                of = self._counts[kinds[rest[0]]]
                of[word] = of.get(word, 0) + int(count)
        return self._counts[pos]

    def synset(self, pos: str, offset: int) -> Synset:
        """The sense whose line starts at this byte."""
        if pos not in self._data:
            self._data[pos] = self._read(f"data.{_FILES[pos]}")
        data = self._data[pos]
        fields = data[offset : data.index(b"\n", offset)].split(b"|")[0].decode().split()
        n = int(fields[3], 16)
        words = tuple(word.split("(")[0].replace("_", " ") for word in fields[4 : 4 + 2 * n : 2])
        rest = fields[4 + 2 * n :]
        pointers = tuple(
            (symbol, "a" if to == "s" else to, int(where), int(ends[:2], 16), int(ends[2:], 16))
            for symbol, where, to, ends in (rest[1 + 4 * i : 5 + 4 * i] for i in range(int(rest[0])))
        )
        return Synset(pos, offset, int(fields[1]), words, pointers)

    def morphy(self, word: str, pos: str) -> str | None:
        """The dictionary form of a word with underscores for spaces, None when unknown."""
        index = self.index(pos)
        irregular = self.exceptions(pos).get(word)
        if irregular in index:
            return irregular
        candidates = [word] + [word[: -len(end)] + new for end, new in _ENDINGS[pos] if word.endswith(end)]
        return next((candidate for candidate in candidates if candidate in index), None)


def _places() -> Iterator[Path]:
    import nltk

    for folder in nltk.data.path:
        yield Path(folder) / "corpora" / "wordnet"
        yield Path(folder) / "corpora" / "wordnet.zip"
    yield from map(Path, SYSTEM_FOLDERS)


@lru_cache(maxsize=1)
def _database() -> Database | None:
    """The first database found, or None with one log line."""
    for place in _places():
        if (place / "data.noun").is_file() or (place.suffix == ".zip" and place.is_file()):
            return Database(place)
    logger.warning(
        "WordNet not found: no synonym augmentation, and sub-texts judge nouns by built-in families and by the "
        "captions themselves. To have it: python -m nltk.downloader wordnet"
    )
    return None


def available() -> bool:
    """Whether a WordNet database was found."""
    return _database() is not None


@lru_cache(maxsize=1 << 15)
def _synsets(word: str, pos: Pos | None) -> tuple[Synset, ...]:
    database = _database()
    if database is None or not word:
        return ()
    found = []
    for p in (pos,) if pos else _FILES:
        base = database.morphy(word.lower().replace(" ", "_"), p)
        found += [database.synset(p, offset) for offset in database.index(p).get(base or "", ())]
    return tuple(found)


@lru_cache(maxsize=1 << 16)
def _above(pos: str, offset: int) -> frozenset[tuple[str, int]]:
    """All hypernyms of a noun sense."""
    direct = list(_database().synset(pos, offset).linked("@", "@i"))  # type: ignore[union-attr]
    return frozenset(direct).union(*(_above(*one) for one in direct))


@lru_cache(maxsize=1 << 15)
def _synonyms(word: str, pos: Pos | None) -> tuple[str, ...]:
    names = dict.fromkeys(name for synset in _synsets(word, pos) for name in synset.words)
    own = {word.lower(), *(lemma(word, p) for p in _FILES)}
    return tuple(name for name in names if name.lower() not in own)


def synonyms(word: str, pos: Pos | None = None) -> list[str]:
    """Words that share a sense with `word`, frequent senses first, without the word itself."""
    return list(_synonyms(word, pos))


@lru_cache(maxsize=1 << 15)
def _senses(word: str) -> tuple[frozenset, frozenset]:
    """All senses of a word, for adjectives with their cluster, and all that its noun senses are kinds of."""
    own: set[tuple[str, int]] = set()
    above: set[tuple[str, int]] = set()
    for synset in _synsets(word, None):
        own.add((synset.pos, synset.offset))
        own.update(synset.linked("&"))
        if synset.pos == "n":
            above |= _above("n", synset.offset)
    return frozenset(own), frozenset(above)


def related(a: str, b: str) -> bool:
    """Whether, in any sense, the words are synonyms or one noun is a kind of the other ("dog", "animal")."""
    (own_a, above_a), (own_b, above_b) = _senses(a), _senses(b)
    return not (own_a.isdisjoint(own_b) and own_a.isdisjoint(above_b) and own_b.isdisjoint(above_a))


@lru_cache(maxsize=1 << 16)
def is_kind_of(noun: str, ancestor: str) -> bool:
    """Whether the most frequent sense of `noun` is, or lies below, the most frequent sense of `ancestor`."""
    low, high = _synsets(noun, "n")[:1], _synsets(ancestor, "n")[:1]
    return bool(low and high) and (low == high or ("n", high[0].offset) in _above("n", low[0].offset))


@lru_cache(maxsize=1 << 15)
def supersenses(noun: str) -> tuple[int, ...]:
    """The supersenses of a noun's senses, the most frequent first, each once; of a compound those of its last word."""
    synsets = _synsets(noun, "n") or _synsets(noun.split(" ")[-1], "n")
    return tuple(dict.fromkeys(synset.supersense for synset in synsets))


@lru_cache(maxsize=1 << 15)
def verb_share(word: str) -> float:
    """How often a form is a verb, where it is a verb or a noun: high for "jumps" and "drinking", low for "buildings".

    By the counts of WordNet's tagged texts, each sense once more. 0 where it knows no such verb, or is not there.
    """
    database = _database()
    if database is None:
        return 0.0
    found = {pos: database.morphy(word, pos) for pos in ("v", "n")}
    weights = {
        pos: 0 if base is None else database.counts(pos).get(base, 0) + len(database.index(pos)[base])
        for pos, base in found.items()
    }
    return weights["v"] / max(1, sum(weights.values()))


@lru_cache(maxsize=1 << 15)
def _antonyms(word: str) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for synset in _synsets(word, None):
        for symbol, pos, offset, here, there in synset.pointers:
            if symbol == "!" and (not here or synset.words[here - 1].lower() == lemma(word, synset.pos)):  # type: ignore[arg-type]
                found[_database().synset(pos, offset).words[max(there - 1, 0)]] = None  # type: ignore[union-attr]
    return tuple(found)


def antonyms(word: str) -> list[str]:
    """Words of the opposite meaning ("wet": "dry")."""
    return list(_antonyms(word))


@lru_cache(maxsize=1 << 15)
def lemma(word: str, pos: Pos = "n") -> str:
    """The dictionary form of a word; the word itself, lower-case, when WordNet does not know it."""
    database = _database()
    found = database.morphy(word.lower().replace(" ", "_"), pos) if database and word else None
    return found.replace("_", " ") if found else word.lower()


def forget() -> None:
    """Empties every cache, so that a database installed meanwhile is found."""
    cached = (_database, _synsets, _above, _synonyms, _senses, is_kind_of, supersenses, verb_share)
    for function in (*cached, _antonyms, lemma):
        function.cache_clear()
