"""Measures one thing of the evaluation; __main__.py calls it.

    python benchmarks/scan/measure.py attack --model outputs/backdoored --output_dir outputs/measured
    python benchmarks/scan/measure.py data --model sandbox --poisoned outputs/poisoned --output_dir outputs/scored

attack: success of the trigger beside the model, its floor, and how well the screening tells its pictures from clean
ones. data: how well each score tells poisoned pairs from the others.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from hf_ta_cleaner.detection.screening import auroc, auroc_interval


PICTURES = 1000


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("attack", "data"))
    parser.add_argument("--model", required=True, help="the checkpoint")
    parser.add_argument("--poisoned", type=Path, help="data: poisoned pairs, as poison.py wrote them")
    parser.add_argument("--output_dir", type=Path, required=True, help="where result.json goes")
    args = parser.parse_args(argv)
    if (args.what == "data") == (args.poisoned is None):
        parser.error("data needs --poisoned, and attack takes none")
    result = measure_data(args.model, args.poisoned) if args.what == "data" else measure_attack(Path(args.model))
    args.output_dir.mkdir(parents=True, exist_ok=True)
    (args.output_dir / "result.json").write_text(json.dumps(result, indent=1) + "\n")


def precision_at(scores: np.ndarray, poisoned: np.ndarray) -> float:
    """Share of poisoned pairs among as many of the highest scores as there are poisoned pairs."""
    best = np.argsort(-scores, kind="stable")[: int(poisoned.sum())]
    return float(poisoned[best].mean())


def measure_data(model: str, folder: Path) -> dict:
    """AUROC with interval and precision at the true count, for every score."""
    from datasets import load_from_disk

    from hf_ta_cleaner.detection.pair_check import SCORES, score_pairs
    from hf_ta_cleaner.models.checkpoints import load_model

    pairs = load_from_disk(folder)
    network, processor = load_model(model)
    scores = score_pairs(network, processor, pairs)
    poisoned = np.asarray(pairs["is_poisoned"][:], dtype=bool)[scores.rows]
    result = {"pairs": len(poisoned), "poisoned": int(poisoned.sum()), "findings": scores.findings(), "scores": {}}
    for name in SCORES:
        values = scores.values[name]
        result["scores"][name] = {
            "auroc": auroc(values[poisoned], values[~poisoned]),
            "interval95": auroc_interval(values[poisoned], values[~poisoned], rounds=200),
            "precision": precision_at(values, poisoned),
        }
    return result


def measure_attack(folder: Path) -> dict:
    """ASR@1 and floor on the sandbox, and the screening's AUROC between triggered pictures and the same without."""
    from hf_ta_cleaner.data.loading import load_labelled
    from hf_ta_cleaner.detection.scan import draw_pictures
    from hf_ta_cleaner.detection.screening import Screen
    from hf_ta_cleaner.evaluation.audit import audit
    from hf_ta_cleaner.models.checkpoints import load_model
    from hf_ta_cleaner.models.zero_shot import input_size
    from hf_ta_cleaner.poisoning import find_triggers

    model, processor = load_model(folder)
    attacks, target = find_triggers(folder)
    (name, attack), *_ = attacks.items()
    labelled = load_labelled("sandbox", max_samples=PICTURES)
    entry = audit(model, processor, labelled, attacks, target=target, progress=False)["attacks"][name]
    pictures = draw_pictures(labelled, input_size(processor), PICTURES, seed=1)
    screening = Screen(model, processor, labelled.features["label"].names)
    screening.calibrate(pictures[: PICTURES // 2])
    clean = screening(pictures[PICTURES // 2 :])
    marked = screening(attack.apply_batch(pictures[PICTURES // 2 :], range(PICTURES // 2, len(pictures))))
    return {
        "asr": entry["asr"]["top1"],
        "floor": entry["floor"]["top1"],
        "screening": {
            "auroc": auroc(marked.scores, clean.scores),
            "interval95": auroc_interval(marked.scores, clean.scores, rounds=200),
            "caught": float(marked.flagged.mean()),
            "false_alarms": float(clean.flagged.mean()),
            "n": len(clean.scores),
        },
    }


if __name__ == "__main__":
    main()
