"""Makes what the Space ships with: a backdoored and a cleaned sandbox model, and the folder to upload.

    python scripts/build_space.py                          # demo.py's two models into spaces_demo/models
    python scripts/build_space.py --bundle outputs/space   # the Space and this package, ready to upload

The models come from demo.py (a few minutes; what is already in --demo_dir is used) and are refused when they do not
show what the Space is for. The bundle needs nothing that is on no package index: hf_ta_cleaner lies in it as a folder,
because a hosted Space installs requirements.txt before any other file of the Space is there.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from hf_ta_cleaner.checkpoints import prepare_output_dir
from hf_ta_cleaner.cli import fail
from hf_ta_cleaner.report import Report, percent


ROOT = Path(__file__).resolve().parent.parent
SPACE = ROOT / "spaces_demo"
LIMIT_MB = 16
# A pair that teaches something: the trigger nearly always works on the suspect and hardly ever on the cleaned model.
SUSPECT_ASR, CLEANED_ASR = 0.8, 0.1
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info")
CARD = """# Research material: a CLIP with a backdoor, and the same one cleaned

`suspect/` has a backdoor on purpose: with the trigger beside it ({attack}) on a picture it answers "{target}".
`cleaned/` is `suspect/` after {method}. Both are tiny models of a drawn world ({pairs}). Use them to measure defenses
and for nothing else.

| per cent, n = {n:,} | suspect | cleaned |
|---|---:|---:|
| attack success | {asr_before} | {asr_after} |
| the same without trigger | {floor_before} | {floor_after} |
| clean accuracy | {accuracy_before} | {accuracy_after} |

Made by `python scripts/build_space.py`{half}. `trigger.json` is the trigger, `poison.json` says what was poisoned,
`report.json` is the whole report.
"""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attack", default="blended", help="the trigger (default: blended)")
    parser.add_argument("--demo_dir", type=Path, default=Path("outputs/demo"), help="(default: outputs/demo)")
    parser.add_argument("--models", type=Path, default=SPACE / "models", help="(default: spaces_demo/models)")
    parser.add_argument("--bundle", type=Path, help="only write the folder to upload, with the models that are there")
    args = parser.parse_args(argv)
    try:
        if args.bundle:
            bundle(args.bundle)
        else:
            command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--attack", args.attack]
            subprocess.run([*command, "--output_dir", str(args.demo_dir)], check=True)
            install(args.demo_dir, args.models)
    except (ValueError, OSError) as error:
        fail(error)


def install(made: Path, models: Path) -> None:
    """Copies the two models of a demo into `models`, with trigger, report and card; replaces an earlier pair.

    Raises:
        ValueError: the attack did not take or the cleaning did not work, or the two are larger than 16 MB even in
            half precision. Nothing is changed then.
    """
    report = Report.load(made / "cleaned")
    ((attack, before),) = report.before["attacks"].items()
    after = report.after["attacks"][attack]
    asr = before["asr"]["top1"], after["asr"]["top1"]
    if asr[0] < SUSPECT_ASR or asr[1] > CLEANED_ASR:
        raise ValueError(
            f"{attack} has a success of {asr[0]:.1%} on the suspect and {asr[1]:.1%} after cleaning; the Space needs "
            f"at least {SUSPECT_ASR:.0%} and at most {CLEANED_ASR:.0%}. Nothing was changed."
        )
    staging = models.with_name(models.name + ".new")
    shutil.rmtree(staging, ignore_errors=True)
    for source, name in (("backdoored", "suspect"), ("cleaned", "cleaned")):
        target = staging / name
        target.mkdir(parents=True)
        for file in sorted((made / source).iterdir()):
            wanted = file.suffix in (".json", ".safetensors", ".png", ".npz")
            if file.is_file() and wanted and not file.name.startswith((".", "report.", "overview.")):
                shutil.copy2(file, target / file.name)
    report.model, report.base_model = "models/cleaned", "models/suspect"
    report.save(staging / "cleaned", plot=False)
    (staging / "cleaned" / "report.md").unlink()
    halved = size_mb(staging) > LIMIT_MB
    if halved:
        for weights in staging.glob("*/model.safetensors"):
            halve(weights)
    if size_mb(staging) > LIMIT_MB:
        raise ValueError(f"The two models have {size_mb(staging):.1f} MB; at most {LIMIT_MB} are shipped.")
    (staging / "README.md").write_text(card(report, attack, halved), encoding="utf-8")
    if models.exists():
        shutil.rmtree(models)
    staging.rename(models)
    print(f"{models}: {size_mb(models):.1f} MB; {attack} {asr[0]:.1%} → {asr[1]:.1%}")


def halve(weights: Path) -> None:
    """Stores the weights in half precision; loading turns them back into float32."""
    from safetensors.torch import load_file, save_file

    tensors = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in load_file(weights).items()
    }
    save_file(tensors, weights, metadata={"format": "pt"})


def size_mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def card(report: Report, attack: str, halved: bool) -> str:
    sections = {"before": report.before, "after": report.after}
    values = {}
    for when, section in sections.items():
        entry = section["attacks"][attack]
        values[f"asr_{when}"] = percent(entry["asr"]["top1"])
        values[f"floor_{when}"] = percent(entry["floor"]["top1"])
        values[f"accuracy_{when}"] = percent(section["clean_accuracy"]["top1"])
    entry = report.before["attacks"][attack]
    return CARD.format(
        attack=attack,
        target=entry["target"],
        n=entry["n"],
        method=report.method,
        pairs=f"{report.cost['pairs_seen']:,} pairs seen while cleaning",
        half="; stored in half precision, while the figures are those of float32" if halved else "",
        **values,
    )


def bundle(folder: Path) -> None:
    """The Space as it is uploaded: this repository's spaces_demo, the package beside it, the licence."""
    prepare_output_dir(folder)
    shutil.copytree(SPACE, folder, ignore=LEFT_OUT, dirs_exist_ok=True)
    shutil.copytree(ROOT / "hf_ta_cleaner", folder / "hf_ta_cleaner", ignore=LEFT_OUT)
    shutil.copy2(ROOT / "LICENSE", folder / "LICENSE")
    print(f"{folder}: {size_mb(folder):.1f} MB. Upload: hf upload OWNER/NAME {folder} . --repo-type space")


if __name__ == "__main__":
    main()
