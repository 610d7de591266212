"""One measurement in a process of its own, so that none sees another's memory or settings.

python -m benchmarks.speed.worker '{"kind": "step", ...}' prints its result as the last line, JSON.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
from typing import Any


def main() -> None:
    spec: dict[str, Any] = json.loads(sys.argv[1])
    kind = spec.pop("kind")
    logging.disable(logging.WARNING)
    import datasets
    import torch

    from benchmarks.speed import growth, parts, steps

    datasets.disable_progress_bars()
    kinds = {
        "step": steps.measure,
        "parts": parts.measure,
        "rate": parts.matrix_rate,
        "pairs": growth.pairs,
        "batch": growth.batch,
        "classes": growth.classes,
        "triggers": growth.triggers,
    }
    result = kinds[kind](**spec)
    scale = 2**20 if sys.platform == "darwin" else 2**10
    memory = {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale}
    if torch.cuda.is_available():
        memory["peak_gpu_mb"] = torch.cuda.max_memory_allocated() / 2**20
    print("\n" + json.dumps({**result, **memory}))


if __name__ == "__main__":
    main()
