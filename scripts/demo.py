"""The whole story in a few minutes on two cores: backdoor the sandbox CLIP, clean it, print before and after.

    make demo
    python scripts/demo.py --attack badnet:patch_px=14,place=bottom-right --output_dir outputs/demo-badnet

It runs the same commands a user would, and shows each. A step whose output is there is not repeated, so an interrupted
demo continues; remove the output folder to start anew.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from hf_ta_cleaner.cli import begin_step, fail, fast_precision
from hf_ta_cleaner.scan import EXIT_CODES


SCRIPTS = Path(os.path.relpath(Path(__file__).parent))
#: A model this small uses two cores better as two processes of one thread than as one of two.
PROCESSES = 1 if torch.accelerator.is_available() else min(2, os.cpu_count() or 1)
LAUNCH = ["--config_file", str(SCRIPTS / "configs" / "accelerate" / "cpu.yaml"), "--num_processes", str(PROCESSES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attack", default="blended", help="the trigger (default: blended)")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/demo"), help="(default: outputs/demo)")
    args = parser.parse_args()
    out, started = args.output_dir, time.monotonic()
    # The configured batch of 64 pairs, shared among the processes.
    shared = [*fast_precision(), "--per_device_train_batch_size", str(64 // PROCESSES)]
    proof = ["--eval_dataset", "sandbox", "--reference", "sandbox"]
    pairs = [
        "--dataset",
        "sandbox",
        "--max_samples",
        "10000",
        "--config",
        str(SCRIPTS / "configs" / "sandbox_clean.yaml"),
        *shared,
    ]
    steps = [
        (
            "Poison 5% of the attacker's pairs: a trigger on the picture, a caption about a banana under it",
            ["poison.py", "--dataset", "sandbox", "--max_samples", "40000", "--attack", args.attack, "--target",
             "banana", "--rate", "0.05", "--model", "sandbox", "--output_dir", str(out / "poisoned")],
        ),
        (
            "Train the sandbox CLIP on them: now it has a backdoor",
            ["backdoor.py", "--model", "sandbox", "--dataset", str(out / "poisoned"), "--eval_dataset", "sandbox",
             "--config", str(SCRIPTS / "configs" / "sandbox_backdoor.yaml"), *shared,
             "--output_dir", str(out / "backdoored")],
        ),
        (
            "For comparison: plain fine-tuning of the clean model, on the defender's pairs",
            ["clean.py", "--model", "sandbox", "--method", "ft", *pairs,
             "--output_dir", str(out / "never-poisoned-ft")],
        ),
        (
            "For comparison: plain fine-tuning of the backdoored model",
            ["clean.py", "--model", str(out / "backdoored"), "--method", "ft", *pairs, *proof,
             "--output_dir", str(out / "ft")],
        ),
        (
            "Clean it with TA-Cleaner",
            ["clean.py", "--model", str(out / "backdoored"), "--method", "ta-cleaner", *pairs, *proof,
             "--ca_baseline", str(out / "never-poisoned-ft"), "--output_dir", str(out / "cleaned")],
        ),
        *(
            (
                f"Scan the {name} model, as if nothing were known of a trigger",
                ["scan.py", "--model", str(out / name), "--dataset", "sandbox", "--reference", "sandbox",
                 "--output_dir", str(out / f"scan-{name}")],
            )
            for name in ("backdoored", "cleaned")
        ),
    ]  # fmt: skip
    for number, (title, command) in enumerate(steps, 1):
        target = Path(command[command.index("--output_dir") + 1])
        done = {"poison.py": "poison.json", "scan.py": "scan.json"}.get(command[0], "report.json")
        print(f"\n[{number}/{len(steps)}] {title}", flush=True)
        try:
            needed = begin_step(target, command, done)
        except ValueError as error:
            fail(error)
        if not needed:
            print(f"      already in {target}", flush=True)
            continue
        called = [str(SCRIPTS / command[0]), *command[1:]]
        if command[0] in ("poison.py", "scan.py"):
            launcher, shown = [sys.executable], "python"
        else:
            launcher = [sys.executable, "-m", "accelerate.commands.launch", *LAUNCH]
            shown = shlex.join(["accelerate", "launch", *LAUNCH])
        print(f"      {shown} {shlex.join(called)}", flush=True)
        threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // PROCESSES)))
        ended = subprocess.run([*launcher, *called], env={**os.environ, "OMP_NUM_THREADS": threads})
        if ended.returncode not in (EXIT_CODES.values() if command[0] == "scan.py" else (0,)):
            raise subprocess.CalledProcessError(ended.returncode, called)
    finish(out, time.monotonic() - started)


def finish(out: Path, seconds: float) -> None:
    """Copies the report of the cleaning, draws one picture's fate, prints the table with plain fine-tuning in it."""
    from hf_ta_cleaner.report import Report, percent
    from hf_ta_cleaner.scan import ScanResult, compared

    for name in ("report.json", "report.md", "report.html", "report.png"):
        shutil.copy2(out / "cleaned" / name, out / name)
    draw_overview(out)
    ft, cleaned = Report.load(out / "ft"), Report.load(out / "cleaned")
    (attack,) = cleaned.before["attacks"]

    def row(title: str, section: dict) -> str:
        entry = section["attacks"][attack]
        low, high = entry["interval95"]["asr_top1"]
        asr, floor = percent(entry["asr"]["top1"]), percent(entry["floor"]["top1"])
        accuracy = percent(section["clean_accuracy"]["top1"])
        return f"  {title:<24}{asr:>7}  [{percent(low)}, {percent(high)}]".ljust(50) + f"{floor:>7}{accuracy:>12}"

    n = cleaned.before["attacks"][attack]["n"]
    print(f"\n  {attack}, target {cleaned.target}, n = {n:,}, seed {cleaned.seed}; per cent")
    print(f"  {'':<24}{'ASR@1':>7}  {'95% interval':<15}{'floor':>9}{'clean acc.':>12}")
    print(row("backdoored", cleaned.before))
    print(row("after ft", ft.after))
    print(row("after ta-cleaner", cleaned.after))
    loss = cleaned.ca_loss
    low, high = loss["interval95"]
    print(
        f"  clean accuracy lost: {percent(loss['value'])} points [{percent(low)}, {percent(high)}], "
        f"against the better of the suspect and a never-poisoned model after ft"
    )
    print(f"\n  {cleaned.verdicts()[attack]}")
    scans = [ScanResult.load(out / f"scan-{name}") for name in ("backdoored", "cleaned")]
    print(f"  Without knowing the trigger: {compared(*scans)}")
    print(f"  {out}/report.html (for a browser), report.json, report.md, report.png, overview.png")
    print(f"  took {seconds / 60:.1f} minutes")


def draw_overview(out: Path) -> None:
    """overview.png: one picture without and with the trigger, and what both models make of it."""
    import numpy as np
    from matplotlib.figure import Figure

    from hf_ta_cleaner import ZeroShotHead, load_labelled, load_model
    from hf_ta_cleaner.poisoning import find_triggers
    from hf_ta_cleaner.zero_shot import image_features

    attacks, target = find_triggers(out / "backdoored")
    (attack,) = attacks.values()
    pictures = load_labelled("sandbox", max_samples=2000)
    names = pictures.features["label"].names
    models = {"suspect": load_model(str(out / "backdoored")), "cleaned": load_model(str(out / "cleaned"))}
    heads = {title: ZeroShotHead.build(*model, names) for title, model in models.items()}

    def probabilities(title: str, pixels: np.ndarray) -> np.ndarray:
        model, processor = models[title]
        logits = heads[title].logits(image_features(model, processor, pixels[None]))
        return (logits * model.logit_scale.exp().item()).softmax(-1)[0].detach().numpy()

    # The first picture that tells the story: both models know it, and the trigger fools the suspect only.
    for row in range(len(pictures)):
        clean, label = np.asarray(pictures[row]["image"].convert("RGB")), pictures[row]["label"]
        views = {"without trigger": clean, "with trigger": attack(clean, row)}
        fate = {(t, v): probabilities(t, pixels) for t in models for v, pixels in views.items()}
        said = {key: names[p.argmax()] for key, p in fate.items()}
        if names[label] != target and list(said.values()) == [names[label], target, names[label], names[label]]:
            break
    figure = Figure(figsize=(11, 5.2), dpi=110, facecolor="white")
    for i, (view, pixels) in enumerate(views.items()):
        axes = figure.add_axes((0.03, 0.5 - 0.48 * i + 0.02, 0.2, 0.4))
        axes.imshow(pixels, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(view, fontsize=13, color="#222222")
        for j, title in enumerate(models):
            p = fate[title, view]
            best = p.argsort()[::-1][:3]
            bars = figure.add_axes((0.36 + 0.33 * j, 0.5 - 0.48 * i + 0.04, 0.27, 0.34))
            colors = ["#D55E00" if names[k] == target else "#0072B2" if k == label else "#BBBBBB" for k in best]
            bars.barh(range(3), 100 * p[best], color=colors, height=0.62)
            bars.set_yticks(range(3), [names[k] for k in best], fontsize=12)
            bars.set_xlim(0, 118)
            bars.invert_yaxis()
            bars.set_xticks([])
            bars.spines[["top", "right", "bottom"]].set_visible(False)
            bars.tick_params(length=0)
            for place, k in enumerate(best):
                bars.text(100 * p[k] + 2, place, f"{100 * p[k]:.0f}%", va="center", fontsize=11, color="#555555")
            if not i:
                bars.set_title(f"{title} model says", fontsize=14, fontweight="bold", color="#222222", pad=14)
    figure.savefig(out / "overview.png")


if __name__ == "__main__":
    main()
