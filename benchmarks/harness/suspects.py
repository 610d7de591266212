"""The backdoored models that the benchmarks share: made as the presets of their world say, and made once."""

from __future__ import annotations

from pathlib import Path

from benchmarks.harness.steps import Step, following
from benchmarks.harness.worlds import SANDBOX, World
from hf_ta_cleaner.commands.parser import fast_precision


#: Seconds of one core: a process' start, an audit, a pair that is trained on with the method ft.
START, AUDIT, PER_PAIR = 20.0, 25.0, 0.0030


def make_suspect(
    out: Path,
    attack: str,
    seed: int,
    *,
    world: World = SANDBOX,
    attacker: str = "",
    times: float = 1,
    flags: tuple[str, ...] = (),
    per_pair: float = PER_PAIR,
) -> tuple[Step, ...]:
    """The steps that make one backdoored model, `out/ATTACK-SEED[-ATTACKER]-backdoored`, by the attack's preset.

    Args:
        out: Folder of the models.
        attack: Key of the world's presets.
        seed: Seed of trigger, poison and training.
        world: Where it lives.
        attacker: Name of one who does something else than the preset says; the crafted trigger is the same.
        times: This many times the preset's poison rate.
        flags: Further flags of backdoor.py.
        per_pair: Expected seconds of training for each pair.
    """
    preset, s = world.presets[attack], str(seed)
    name = "-".join(filter(None, (attack, s, attacker)))
    poisoned, suspect = str(out / f"{name}-poisoned"), str(out / f"{name}-backdoored")
    steps, spec = [], preset.attack
    if preset.craft:
        spec = str(out / f"{attack}-{s}-trigger")
        target = () if "ssba" in preset.craft else ("--target", world.target)
        craft = ("scripts/craft.py", "--model", world.model, "--dataset", world.poison, *preset.craft, *target,
                 "--seed", s, "--output_dir", spec)  # fmt: skip
        steps.append(Step(craft, "craft.json", START + 30, (repr(preset),)))
    elif seed:
        spec += f"{',' if ':' in spec else ':'}seed={seed}"
    poison = ("scripts/poison.py", "--dataset", world.poison, "--max_samples", str(preset.pairs), "--attack", spec,
              "--target", world.target, "--rate", f"{times * preset.rate:g}", "--model", world.model, "--seed", s,
              "--output_dir", poisoned)  # fmt: skip
    if world is SANDBOX:
        training: tuple[str, ...] = ("--preset", "sandbox")
    else:
        training = tuple(word for name, value in preset.training.items() for word in (f"--{name}", f"{value:g}"))
    train = ("scripts/backdoor.py", "--model", world.model, "--dataset", poisoned, *world.evaluation, *training,
             *fast_precision(), *flags, "--seed", s, "--output_dir", suspect)  # fmt: skip
    seconds = START + 2 * AUDIT + per_pair * preset.pairs * preset.num_train_epochs
    # The record is copied beside the checkpoint when all else is there.
    steps += [Step(poison, "poison.json", START + 60, (repr(preset),)), Step(train, "poison.json", seconds)]
    return following(*steps)
