"""Fixtures of the tests of sub-texts."""

from __future__ import annotations

import pytest

from hf_ta_cleaner.subtexts import Vocabulary, parse
from tests.subtexts.helpers import CAPTIONS


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    rows = [parse(caption).to_row() for caption in CAPTIONS]
    return Vocabulary.from_parts(rows * 3)
