"""Caption -> tagged words and marks. TextBlob's offline tagger gives the parts of speech."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from . import lexicon as lx


#: Words read of one caption. CLIP itself sees 77 tokens.
MAX_WORDS = 256

_TOKEN = re.compile(
    r"(?P<noise>https?://\S+|www\.\S+|[#@]\w+|\S{1,80}\.(?:jpe?g|png|gif|webp|com|org|net|html?)\b|&\w+;|<[^>\s]{0,80}>)"
    r"|(?P<word>[^\W_]+(?:['’-][^\W_]+)*)"
    r"|(?P<mark>[^\w\s])"
)
_CONTRACTED_IS = ("there's", "here's", "it's", "that's")


@dataclass
class Token:
    """A lower-case word or mark with its tag and its place in the caption; marks other than commas read "."."""

    text: str
    tag: str
    start: int
    end: int


def tokenize(caption: str) -> list[Token]:
    """Tagged words and marks; empty when there is no word in Latin letters."""
    found: list[tuple[str, int, int]] = []
    for match in _TOKEN.finditer(caption):
        text, (start, end) = match.group().lower().replace("’", "'"), match.span()
        is_word = match.lastgroup == "word" and text not in lx.NOISE and all(ord(c) < 0x250 for c in text)
        if not is_word:
            found.append((text if text in (",", "&") else ".", start, end))
        elif text.endswith("'s") and text not in _CONTRACTED_IS:
            found += [(text[:-2], start, end - 2), ("'s", end - 2, end)]
        else:
            found.append((text, start, end))
        if len(found) >= MAX_WORDS:
            break
    if not any(text[0].isalpha() for text, _, _ in found):
        return []
    tags = _tagger()([text for text, _, _ in found])
    return [Token(text, tag, start, end) for (text, start, end), tag in zip(found, tags, strict=True)]


@cache
def _tagger() -> Callable[[list[str]], list[str]]:
    from textblob.en import parse

    return lambda words: [tag for _, tag in parse(" ".join(words), tokenize=False, chunks=False, collapse=False)[0]]
