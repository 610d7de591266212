"""Sub-texts of captions, the heart of TA-Cleaner (arXiv 2409.17601): smaller true statements and falsified ones.

A caption is parsed once (`SubTextMap`), the user's captions give the words to falsify with (`Vocabulary`), and every
epoch draws new sub-texts (`Vocabulary.sub_texts`). The paper's parser and vocabulary are not public; parser, tables
and the rules of what makes a statement false are this project's own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..seeding import code_digest
from .drafts import SubText
from .grammar import parse
from .parts import Attribute, Parts, Phrase, Statement
from .vocabulary import Vocabulary


__all__ = ["Attribute", "Parts", "Phrase", "Statement", "SubText", "SubTextMap", "Vocabulary", "parse"]


@dataclass(frozen=True)
class SubTextMap:
    """Adds the column `parts` in `dataset.map(SubTextMap(), batched=True)`.

    Holds nothing but its arguments, so `datasets` caches the result; the new column is a struct of four strings
    whatever the captions hold (`Parts.to_row`).

    Args:
        caption_column: Column of strings; None counts as an empty caption.
        parts_column: Name of the new column.
        code: Digest of the parser's sources, so that a change of it is not hidden by the cache.
    """

    caption_column: str = "caption"
    parts_column: str = "parts"
    code: str = field(default_factory=partial(code_digest, Path(__file__).parent), repr=False)

    def __call__(self, batch: dict[str, list]) -> dict[str, list[dict[str, str]]]:
        if self.caption_column not in batch:
            raise KeyError(
                f"No column {self.caption_column!r} among {sorted(batch)}. Pass SubTextMap(caption_column=...)."
            )
        captions = batch[self.caption_column]
        if isinstance(captions, str) or captions is None:
            raise TypeError("SubTextMap reads batches of captions: use dataset.map(..., batched=True).")
        return {self.parts_column: [parse(caption).to_row() for caption in captions]}
