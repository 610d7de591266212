"""Fixtures of the tests of the data."""

from __future__ import annotations

import pytest

from tests.data.helpers import (
    encode,
)


@pytest.fixture
def pictures(photos) -> list[bytes]:
    """Six encoded pictures: JPEG and PNG of different sizes and modes."""
    modes = ["RGB", "L", "CMYK", "RGBA", "P", "1"]
    forms = ["JPEG", "JPEG", "JPEG", "PNG", "PNG", "PNG"]
    return [encode(p.convert(m), f) for p, m, f in zip(photos, modes, forms, strict=False)]


@pytest.fixture
def folder(tmp_path, pictures):
    """A folder "photos" with the pictures, 0.jpg to 5.png."""
    root = tmp_path / "photos"
    root.mkdir()
    for i, picture in enumerate(pictures):
        (root / f"{i}{'.jpg' if i < 3 else '.png'}").write_bytes(picture)
    return root
