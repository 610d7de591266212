"""Fixtures of the tests of poisoning."""

from __future__ import annotations

import pytest
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature

from tests.poisoning.helpers import N, caption_of, jpeg


@pytest.fixture
def pictures(photos):
    return [jpeg(photos[i % len(photos)]) for i in range(N)]


@pytest.fixture
def dataset(pictures):
    """60 JPEG pairs; captions 0, 4, 8, ... name a banana, each in other words."""
    images = [{"bytes": picture, "path": f"{i}.jpg"} for i, picture in enumerate(pictures)]
    features = Features({"image": ImageFeature(), "caption": Value("string")})
    return Dataset.from_dict({"image": images, "caption": list(map(caption_of, range(N)))}, features=features)
