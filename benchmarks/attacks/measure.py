"""One cell of the calibration table: a backdoored model and the clean one it came from, under the same trigger.

    python benchmarks/attacks/measure.py --clean sandbox --suspect outputs/backdoored --poisoned outputs/poisoned \\
        --dataset sandbox --output_dir outputs/measured
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from datasets import load_from_disk

from hf_ta_cleaner.attacks import Attack
from hf_ta_cleaner.data.loading import clean_rows, load_labelled
from hf_ta_cleaner.evaluation.audit import audit, paired_interval
from hf_ta_cleaner.models.checkpoints import load_model
from hf_ta_cleaner.models.zero_shot import input_size
from hf_ta_cleaner.poisoning import RECORD, PoisonRecord, mentions
from hf_ta_cleaner.publishing.report import package_versions


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", required=True, help="the model before poisoning")
    parser.add_argument("--suspect", required=True, help="the model after it, with its trigger beside it")
    parser.add_argument("--poisoned", required=True, type=Path, help="what it was fine-tuned on")
    parser.add_argument("--dataset", required=True, help="labelled pictures")
    parser.add_argument("--output_dir", required=True, type=Path, help="where result.json goes")
    args = parser.parse_args(argv)
    result = measure(args.clean, args.suspect, args.poisoned, clean_rows(load_labelled(args.dataset))[0])
    args.output_dir.mkdir(parents=True, exist_ok=True)
    (args.output_dir / "result.json").write_text(json.dumps(result, indent=1) + "\n")


def measure(clean: str, suspect: str, poisoned: Path, pictures) -> dict:
    """The figures of one cell; rates in [0, 1]."""
    attack, record = Attack.load(suspect), PoisonRecord.load(Path(suspect) / RECORD)
    sections, predictions = {}, {}
    for who, name in (("clean", clean), ("suspect", suspect)):
        model, processor = load_model(name)
        sections[who], predictions[who] = audit(
            model, processor, pictures, [attack], target=record.target, progress=False, return_predictions=True
        )
    entry, normal = (sections[who]["attacks"][attack.name] for who in ("suspect", "clean"))
    accuracy = sections["suspect"]["clean_accuracy"]
    lost, interval = paired_interval(predictions["clean"].correct(), predictions["suspect"].correct())
    naming = sum(mentions(text, record.target) for text in load_from_disk(poisoned)["caption"])
    if attack.caption_source != "own":
        naming -= record.count  # those whose caption was put there by the attacker
    result = {
        "n": entry["n"],
        "n_clean": accuracy["n"],
        "rate": record.rate,
        "share_of_target": record.count / max(1, naming),
        "patch_share": patch_share(attack, input_size(processor)),
        "asr": entry["asr"]["top1"],
        "asr_interval95": entry["interval95"]["asr_top1"],
        "floor": entry["floor"]["top1"],
        "floor_interval95": entry["interval95"]["floor_top1"],
        "clean_floor": normal["floor"]["top1"],
        "clean_floor_interval95": normal["interval95"]["floor_top1"],
        "never_poisoned_asr": normal["asr"]["top1"],
        "never_poisoned_asr_interval95": normal["interval95"]["asr_top1"],
        "ca": accuracy["top1"],
        "clean_ca": sections["clean"]["clean_accuracy"]["top1"],
        "ca_loss": lost,
        "ca_loss_interval95": interval,
    }
    if "prompt_trigger" in entry:
        # The floor above is then the word's: prompts with it, pictures without the patch.
        result["asr_image_key"] = entry["prompt_trigger"]["asr_plain_prompts"]["top1"]
        result["ca_prefixed"] = entry["prompt_trigger"]["clean_accuracy"]["top1"]
    return {**result, "versions": package_versions()}


def patch_share(attack: Attack, side: int) -> float | None:
    """The side of a square trigger as a share of the picture's; None where the trigger covers the whole picture."""
    if (patch := getattr(attack, "patch", None)) is not None:
        return patch.shape[0] / attack.side
    if not hasattr(attack, "patch_px"):
        return None
    return (attack.patch_px or max(1, round(16 * side / 224))) / side


if __name__ == "__main__":
    main()
