"""The drawn world proves sub-texts true and false; speed."""

from __future__ import annotations

import time
from collections import Counter
from random import Random

from hf_ta_cleaner.seeding import rng
from hf_ta_cleaner.subtexts import Vocabulary, parse
from tests.subtexts.helpers import CAPTIONS, corpus


def test_scenes_prove_the_sub_texts():
    from hf_ta_cleaner.sandbox.captions import caption
    from hf_ta_cleaner.sandbox.scene import compose
    from hf_ta_cleaner.sandbox.truth import holds

    scenes = [compose("sub-texts", i) for i in range(2000)]
    parsed = [parse(caption(scene)) for scene in scenes]
    vocabulary = Vocabulary.from_parts(parts.to_row() for parts in parsed)
    verdicts: Counter = Counter()
    for i, (scene, parts) in enumerate(zip(scenes, parsed, strict=True)):
        positives, negatives = vocabulary.sub_texts(parts, rng("draw", i), 2, 2)
        verdicts.update(("positive", holds(scene, p.text)) for p in positives)
        verdicts.update((n.kind, holds(scene, n.text)) for n in negatives)
    assert sum(p.eligible for p in parsed) > 560
    assert verdicts["positive", True] >= 0.99 * sum(n for (kind, _), n in verdicts.items() if kind == "positive")
    for kind in ("noun", "relation", "attribute"):
        count = sum(n for (k, _), n in verdicts.items() if k == kind)
        assert count > 100
        assert verdicts[kind, False] >= 0.99 * count, kind


def test_speed():
    captions = list(CAPTIONS)
    vocabulary = corpus(*captions)
    parsed = [parse(caption) for caption in captions]
    for parts in parsed:
        vocabulary.sub_texts(parts, Random(0))
    best_parse = min(timed(lambda: [parse(caption) for caption in captions]) for _ in range(5)) / len(captions)
    best_draw = min(timed(lambda: [vocabulary.sub_texts(p, Random(1)) for p in parsed]) for _ in range(5)) / len(
        parsed
    )
    # A few times the usual cost, so that a busy machine does not fail it.
    assert best_parse < 1.5e-3
    assert best_draw < 0.8e-3


def timed(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
