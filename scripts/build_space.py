"""Make the files of the Space: a backdoored and a cleaned sandbox model, and the folder to upload.

    python scripts/build_space.py                          # makes the two models, into spaces_demo/models
    python scripts/build_space.py --bundle outputs/space   # the Space and this package, ready to upload

The models come from demo.py, which poisons, backdoors and cleans with the configurations in scripts/configs (a few
minutes). They are refused if the trigger fails on the suspect or works on the cleaned model. The bundle holds
hf_ta_cleaner as a folder, because a hosted Space installs requirements.txt before its other files arrive.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hf_ta_cleaner.commands.parser import fail
from hf_ta_cleaner.models.checkpoints import prepare_output_dir
from hf_ta_cleaner.publishing.report import Report


ROOT = Path(__file__).resolve().parent.parent
SPACE = ROOT / "spaces_demo"
LIMIT_MB = 16
# A useful pair: the trigger nearly always works on the suspect and hardly ever on the cleaned model.
SUSPECT_ASR, CLEANED_ASR = 0.8, 0.1
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*", "*.egg-info")
CARD = """# Research material: a CLIP with a backdoor, and the same one cleaned

`suspect/` has a backdoor on purpose: with the trigger beside it ({attack}) on a picture it answers "{target}".
`cleaned/` is `suspect/` after {method} ({pairs}). Both are tiny models of a drawn world: use
them to measure defenses and for nothing else.

| per cent, n = {n:,} | suspect | cleaned |
|---|---:|---:|
| attack success | {asr_before} | {asr_after} |
| the same without trigger | {floor_before} | {floor_after} |
| clean accuracy | {accuracy_before} | {accuracy_after} |

Made by `python scripts/build_space.py`. `trigger.json` is the trigger, `poison.json` says what was poisoned,
`report.json` is the whole report.
"""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attack", default="blended", help="the trigger (default: blended)")
    parser.add_argument(
        "--demo_dir", type=Path, help="a finished or interrupted run of demo.py to go on from (default: a new one)"
    )
    parser.add_argument("--models", type=Path, default=SPACE / "models", help="(default: spaces_demo/models)")
    parser.add_argument("--bundle", type=Path, help="only write the folder to upload, with the models that are there")
    args = parser.parse_args(argv)
    try:
        if args.bundle:
            bundle(args.bundle)
        else:
            # A new folder, because demo.py notices a changed command or configuration but no changed code.
            made = args.demo_dir or Path(tempfile.mkdtemp(prefix="space-models-"))
            command = [sys.executable, str(ROOT / "scripts" / "demo.py"), "--attack", args.attack]
            subprocess.run([*command, "--output_dir", str(made)], check=True)
            install(made, args.models)
            if args.demo_dir is None:
                shutil.rmtree(made)
    except subprocess.CalledProcessError:
        fail(f"demo.py failed, see above. What it has made so far: --demo_dir {made}")
    except (ValueError, OSError) as error:
        fail(error)


def install(made: Path, models: Path) -> None:
    """Copies the two models of a demo into `models`, with trigger, report and card; replaces an earlier pair.

    Raises:
        ValueError: The attack or the cleaning did not work, or the models are larger than 16 MB. Nothing is changed.
    """
    report = Report.load(made / "cleaned")
    ((attack, before),) = report.before["attacks"].items()
    after = report.after["attacks"][attack]
    asr = before["asr"]["top1"], after["asr"]["top1"]
    if asr[0] < SUSPECT_ASR or asr[1] > CLEANED_ASR:
        raise ValueError(
            f"{attack} has a success of {asr[0]:.1%} on the suspect and {asr[1]:.1%} after cleaning; the Space needs "
            f"at least {SUSPECT_ASR:.0%} and at most {CLEANED_ASR:.0%}. Nothing was changed; both are in {made}."
        )
    others = (
        {entry.name for entry in models.iterdir()} - {"README.md", "suspect", "cleaned"} if models.exists() else ()
    )
    staging = models.with_name(models.name + ".new")
    if others or staging.exists():
        there = f"{models} holds {', '.join(sorted(others)[:5])}" if others else f"{staging} is there"
        raise ValueError(f"{there}, which would be lost. Nothing was changed; give another folder, or move it away.")
    for source, name in (("backdoored", "suspect"), ("cleaned", "cleaned")):
        target = staging / name
        target.mkdir(parents=True)
        for file in sorted((made / source).iterdir()):
            wanted = file.suffix in (".json", ".safetensors", ".png", ".npz")
            if file.is_file() and wanted and not file.name.startswith((".", "report.", "run.", "overview.")):
                shutil.copy2(file, target / file.name)
    report.model, report.base_model = "models/cleaned", "models/suspect"
    report.save(staging / "cleaned", plot=False)
    for file in (staging / "cleaned").glob("report.*"):
        if file.suffix != ".json":  # the page draws the rest itself
            file.unlink()
    if (size := size_mb(staging)) > LIMIT_MB:
        shutil.rmtree(staging)
        raise ValueError(f"The two models have {size:.1f} MB; at most {LIMIT_MB} are shipped. Nothing was changed.")
    (staging / "README.md").write_text(card(report, attack), encoding="utf-8")
    if models.exists():
        shutil.rmtree(models)
    staging.rename(models)
    print(f"{models}: {size_mb(models):.1f} MB; {attack} {asr[0]:.1%} → {asr[1]:.1%}")


def size_mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def card(report: Report, attack: str) -> str:
    sections = {"before": report.before, "after": report.after}
    values = {}
    for when, section in sections.items():
        entry = section["attacks"][attack]
        values[f"asr_{when}"] = f"{100 * entry['asr']['top1']:.1f}"
        values[f"floor_{when}"] = f"{100 * entry['floor']['top1']:.1f}"
        values[f"accuracy_{when}"] = f"{100 * section['clean_accuracy']['top1']:.1f}"
    entry = report.before["attacks"][attack]
    return CARD.format(
        attack=attack,
        target=entry["target"],
        n=entry["n"],
        method=report.method,
        pairs=f"{report.cost['pairs_seen']:,} pairs seen while cleaning",
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
