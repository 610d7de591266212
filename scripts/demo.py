"""A demonstration in about ten minutes on two cores: backdoor the sandbox CLIP, clean it, print before and after.

    make demo
    python scripts/demo.py --attack badnet:patch_px=14,place=bottom-right --output_dir outputs/demo-badnet

It runs and shows the same commands that a user would run. A step whose output exists is not repeated, so an
interrupted demo continues. Remove the output folder to start anew.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import torch
from tqdm.auto import tqdm

from hf_ta_cleaner.commands.parser import begin_step, fail, fast_precision
from hf_ta_cleaner.detection.scan import EXIT_CODES


SCRIPTS = Path(os.path.relpath(Path(__file__).parent))
CONFIGS = SCRIPTS / "configs"
#: The file that a command writes last; every other command writes report.json last.
DONE = {"poison.py": "poison.json", "scan.py": "scan.json"}
#: A model this small uses two cores better as two processes of one thread than as one of two.
PROCESSES = 1 if torch.accelerator.is_available() else min(2, os.cpu_count() or 1)
LAUNCH = ["--config_file", str(CONFIGS / "accelerate" / "cpu.yaml"), "--num_processes", str(PROCESSES)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attack", default="blended", help="the trigger (default: blended)")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/demo"), help="(default: outputs/demo)")
    args = parser.parse_args()
    out, started = args.output_dir, time.monotonic()
    steps = story(out, args.attack)
    for number, (title, *commands) in enumerate(steps, 1):
        print(f"\n[{number}/{len(steps)}] {title}", flush=True)
        try:
            needed = [command for command in commands if begin(command)]
        except ValueError as error:
            fail(error)
        for command in commands:
            if command not in needed:
                print(f"      already in {command[-1]}", flush=True)
        if len(needed) > 1 and PROCESSES > 1:
            run_side_by_side(needed)
        else:
            for command in needed:
                run(command)
    finish(out, time.monotonic() - started)


def story(out: Path, attack: str) -> list[tuple]:
    """The steps: each is a title and independent commands. The last word of a command is its output folder."""
    proof = ["--eval_dataset", "sandbox", "--reference", "sandbox"]
    pairs = ["--dataset", "sandbox", "--max_samples", "7500", "--config", str(CONFIGS / "sandbox_clean.yaml")]
    backdoored, never_poisoned = str(out / "backdoored"), str(out / "never-poisoned-ft")
    return [
        (
            "Poison 5% of the attacker's pairs: a trigger on the picture, a caption about a banana under it",
            ["poison.py", "--dataset", "sandbox", "--max_samples", "35000", "--attack", attack, "--target",
             "banana", "--rate", "0.05", "--model", "sandbox", "--output_dir", str(out / "poisoned")],
        ),
        (
            "Train the sandbox CLIP on them: now it has a backdoor",
            ["backdoor.py", "--model", "sandbox", "--dataset", str(out / "poisoned"), "--eval_dataset", "sandbox",
             "--config", str(CONFIGS / "sandbox_backdoor.yaml"), "--output_dir", backdoored],
        ),
        (
            "For comparison, on the defender's pairs: plain fine-tuning of the backdoored and of the clean model",
            ["clean.py", "--model", backdoored, "--method", "ft", *pairs, *proof, "--output_dir", str(out / "ft")],
            ["clean.py", "--model", "sandbox", "--method", "ft", *pairs, "--output_dir", never_poisoned],
        ),
        (
            "Clean it with TA-Cleaner",
            ["clean.py", "--model", backdoored, "--method", "ta-cleaner", *pairs, *proof,
             "--ca_baseline", never_poisoned, "--output_dir", str(out / "cleaned")],
        ),
        (
            "Scan both models without knowledge of the trigger",
            *(
                ["scan.py", "--model", str(out / name), "--dataset", "sandbox", "--reference", "sandbox",
                 "--output_dir", str(out / f"scan-{name}")]
                for name in ("backdoored", "cleaned")
            ),
        ),
    ]  # fmt: skip


def begin(command: list[str]) -> bool:
    """Whether the command must run: it has not finished with these words and these contents of its config file."""
    configs = [Path(command[i + 1]).read_text() for i, flag in enumerate(command) if flag == "--config"]
    return begin_step(Path(command[-1]), [*command, *configs], DONE.get(command[0], "report.json"))


def run(command: list[str]) -> None:
    """Shows the command and runs it; a training runs in `PROCESSES` processes."""
    called = [str(SCRIPTS / command[0]), *command[1:]]
    if command[0] in ("poison.py", "scan.py"):
        launcher, shown = [sys.executable], "python"
    else:
        # The configured batch of 64 pairs, shared among the processes.
        called[-2:-2] = [*fast_precision(), "--per_device_train_batch_size", str(64 // PROCESSES)]
        launcher = [sys.executable, "-m", "accelerate.commands.launch", *LAUNCH]
        shown = shlex.join(["accelerate", "launch", *LAUNCH])
    print(f"      {shown} {shlex.join(called)}", flush=True)
    ended = subprocess.run([*launcher, *called], env=environment(PROCESSES))
    if ended.returncode not in accepted(command):
        raise subprocess.CalledProcessError(ended.returncode, called)


def run_side_by_side(commands: list[list[str]]) -> None:
    """Runs independent commands at once, one core each, under one progress bar. Their output goes to log files."""
    children, fine = {}, {}
    for command in commands:
        precision = [] if command[0] == "scan.py" else fast_precision()
        called = [str(SCRIPTS / command[0]), *command[1:-2], *precision, *command[-2:]]
        log = Path(command[-1] + ".log")
        print(f"      python {shlex.join(called)} > {log}", flush=True)
        with open(log, "w") as output:
            children[log] = subprocess.Popen(
                [sys.executable, *called], stdout=output, stderr=subprocess.STDOUT, env=environment(len(commands))
            )
        fine[log] = (None, *accepted(command))
    failed = None
    with tqdm(bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} steps [{elapsed}]", total=0) as bar:
        while any(child.poll() is None for child in children.values()):
            counts = [training_steps(log) for log in children]
            bar.n, bar.total = (sum(column) for column in zip(*counts, strict=True))
            bar.refresh()
            failed = failed or next((log for log, child in children.items() if child.poll() not in fine[log]), None)
            if failed:  # the others are useless without it
                for child in children.values():
                    child.terminate()
            time.sleep(1)
    failed = failed or next((log for log, child in children.items() if child.returncode not in fine[log]), None)
    if failed:
        fail(f"it failed; its output is in {failed}:\n{failed.read_text(errors='replace')[-2000:]}")


def accepted(command: list[str]) -> tuple[int, ...]:
    """The exit codes that are no failure. Those of a scan are its verdicts."""
    return tuple(EXIT_CODES.values()) if command[0] == "scan.py" else (0,)


def training_steps(log: Path) -> tuple[int, int]:
    """The steps done and the steps in total of a command, from the longest progress bar in its log."""
    counts = re.findall(r"(\d+)/(\d+) \[[^]]*(?:it/s|s/it)", log.read_text(errors="replace"))
    return max(((int(done), int(total)) for done, total in counts), key=lambda c: c[::-1], default=(0, 0))


def environment(shares: int) -> dict[str, str]:
    """The environment of a process that gets one of `shares` equal shares of the cores."""
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // shares)))
    return {**os.environ, "OMP_NUM_THREADS": threads}


def finish(out: Path, seconds: float) -> None:
    """Copies the report of the cleaning, draws overview.png, and prints the table and the results of the scans."""
    from hf_ta_cleaner.detection.scan import ScanResult, compared
    from hf_ta_cleaner.publishing.report import Report, percent, utility_lost

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
    print("\n" + textwrap.fill(cleaned.verdicts()[attack], 100, initial_indent="  ", subsequent_indent="  "))
    cost = utility_lost(cleaned)
    print(textwrap.fill(f"{cost[0].upper()}{cost[1:]}.", 100, initial_indent="  ", subsequent_indent="  "))
    scans = [ScanResult.load(out / f"scan-{name}") for name in ("backdoored", "cleaned")]
    print("\n  Scans without knowledge of the trigger:")
    print(textwrap.indent(compared(*scans), "    "))
    print(f"\n  {out}/report.html (for a browser), report.json, report.md, report.png, overview.png")
    print(f"  took {seconds / 60:.1f} minutes")


def draw_overview(out: Path) -> None:
    """Draws overview.png: one picture without and with the trigger, and the answers of both models."""
    import numpy as np
    from matplotlib.figure import Figure

    from hf_ta_cleaner import ZeroShotHead, load_labelled, load_model
    from hf_ta_cleaner.models.zero_shot import image_features
    from hf_ta_cleaner.poisoning import find_triggers

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

    # The first picture that both models classify correctly and on which the trigger fools the suspect alone.
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
