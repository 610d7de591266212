"""The planner of the defences, with the strengths that the tests expect."""

from __future__ import annotations

import pytest

from benchmarks.defences.plan import LORA, METHODS, Planner


@pytest.fixture
def planner(tmp_path) -> Planner:
    return Planner(
        tmp_path, tmp_path / "bench", {**dict.fromkeys((*METHODS, *LORA), 1.0), "cleanclip": 2.0, "par": 0.5}
    )
