"""How fast is every trigger? Pictures of 224 pixels a second on one core, beside decoding JPEGs, in one run.

    python -m benchmarks.attacks.run --speed

Processor time on one thread, the best of several rounds over the same pictures. Writes speed.json and speed.md.
"""

from __future__ import annotations

import io
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from hf_ta_cleaner.attacks import ATTACKS, SSBA, Attack, Pattern, get_attack
from hf_ta_cleaner.attacks.ssba.encoder import pack, shapes


HERE = Path(__file__).parent
SIDE, PHOTO, QUALITY = 224, (375, 500), 90
PICTURES, ROUNDS = 32, 7


def main() -> None:
    photos = np.stack([picture(i, *PHOTO) for i in range(PICTURES)])
    squares = np.stack([picture(i, SIDE, SIDE) for i in range(PICTURES)])
    small, large = ([encoded(image) for image in images] for images in (squares, photos))
    rows = {
        f"decoding a JPEG of {SIDE} x {SIDE}": seconds(lambda: [decoded(file) for file in small]),
        f"decoding a JPEG of {PHOTO[1]} x {PHOTO[0]}": seconds(lambda: [decoded(file) for file in large]),
    }
    decoding = list(rows.values())
    for name, attack in triggers().items():
        rows[name] = seconds(lambda attack=attack: attack.apply_batch(squares, range(PICTURES)))
    machine = {"python": platform.python_version(), "numpy": np.__version__, "cpu": cpu_name()}
    (HERE / "speed.json").write_text(json.dumps({"machine": machine, "seconds": rows}, indent=1) + "\n")
    text = table(rows, decoding, machine)
    (HERE / "speed.md").write_text(text)
    print(text)


def triggers() -> dict[str, Attack]:
    """Every attack as it is and as published, and SSBA with an encoder (random weights: they cost the same)."""
    patch = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    found: dict[str, Attack] = {}
    for name, kind in ATTACKS.items():
        needs = {"patch": patch} if "patch" in kind.__dataclass_fields__ else {}
        found[name] = get_attack(name, **needs)
        if "compat" in kind.__dataclass_fields__:
            found[f"{name}, published"] = get_attack(name, compat="published")
    found["ssba, trained encoder"] = SSBA(encoder=random_encoder())
    return found


def random_encoder() -> Pattern:
    import torch

    return pack({name: 0.05 * torch.randn(shape) for name, shape in shapes().items()})


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """A color picture with the spectrum of photographs, 1 / f^1.2: uint8 (height, width, 3)."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    noise = np.random.default_rng(seed).normal(size=(4, height, width))
    grey, *colors = np.fft.ifft2(np.fft.fft2(noise) * np.maximum(frequency, 1 / width) ** -1.2).real
    values = np.stack([grey + 0.4 * color for color in colors], -1)
    return (128 + 45 * (values - values.mean()) / values.std()).clip(0, 255).astype(np.uint8)


def encoded(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def decoded(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds a picture, the best of several rounds."""
    work()  # what is computed once and kept does not count
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        best = min(best, (time.process_time() - started) / PICTURES)
    return best


def table(rows: dict[str, float], decoding: list[float], machine: dict) -> str:
    lines = [
        "| | pictures/s/core | ms a picture | share of decoding a JPEG of 224 x 224 | of 500 x 375 |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, value in rows.items():
        shares = " | ".join(f"{value / own:.2f}" for own in decoding)
        lines.append(f"| {name} | {1 / value:,.0f} | {1000 * value:.3f} | {shares} |")
    about = ", ".join(f"{key} {value}" for key, value in machine.items())
    return (
        "# How fast is every trigger?\n\n"
        f"`python -m benchmarks.attacks.run --speed`. `apply_batch` on {PICTURES} uint8 pictures of {SIDE} pixels, "
        f"one thread, the best of {ROUNDS} rounds; JPEGs of quality {QUALITY}, decoded by Pillow.\n\n"
        + "\n".join(lines)
        + f"\n\nMachine: {about}.\n"
    )


def cpu_name() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
