"""Makes the data that the matrix needs and no script makes; run.py calls it.

python benchmarks/defences/prepare.py rebound --seed 0 FOLDER
python benchmarks/defences/prepare.py rebound --seed 0 --dataset pairs/ --target frog FOLDER
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
from datasets import Dataset
from PIL import Image, ImageFilter, ImageOps

from benchmarks.defences.plan import CLEAN_PAIRS, REBOUND_PAIRS
from benchmarks.harness.worlds import SANDBOX
from hf_ta_cleaner.data.loading import load_pairs
from hf_ta_cleaner.seeding import rng
from hf_ta_cleaner.subtexts import SubTextMap, Vocabulary, parse


#: Prompts that no sub-text looks like.
OTHER_PROMPTS = (
    "category: {}",
    "{} - stock picture, royalty free",
    "guess what this is? {}!",
    "object detected: {} (1 of 1)",
    "my favourite {} of all time",
)
#: Share of short captions among all: 16 positives beside 64 captions.
SHORT = 0.2
_ARTICLES = re.compile(r"\b(an?|the)\s+", re.IGNORECASE)


def rebound(seed: int, dataset: str = SANDBOX.rebound) -> Dataset:
    """Fresh clean pairs, disjoint from all others."""
    split = "rebound" if dataset == "sandbox" else None
    return load_pairs(dataset, split=split, max_samples=REBOUND_PAIRS, seed=seed)


def rebound_without(target: str, seed: int, dataset: str = SANDBOX.rebound) -> Dataset:
    """The same pairs without those whose caption names the target."""
    pairs = rebound(seed, dataset)
    names = re.compile(rf"\b{re.escape(target)}s?\b", re.IGNORECASE)
    return pairs.select([i for i, caption in enumerate(pairs["caption"]) if not names.search(caption)])


def restyled(seed: int, dataset: str = SANDBOX.clean) -> Dataset:
    """The cleaning pairs as another world would have them: pictures as woodcuts, captions as notes."""
    pairs = load_pairs(dataset, max_samples=CLEAN_PAIRS, seed=seed)
    return pairs.map(lambda row: {"image": woodcut(row["image"]), "caption": note(row["caption"])}, desc="Restyling")


def woodcut(picture: Image.Image) -> Image.Image:
    """Few, flat, faded colours with dark outlines; what is where, and its hue, stays."""
    picture = picture.convert("RGB")
    flat = ImageOps.posterize(picture.filter(ImageFilter.MedianFilter(5)), 2)
    edges = ImageOps.autocontrast(picture.convert("L").filter(ImageFilter.FIND_EDGES))
    paper = np.asarray(flat, dtype=np.float32) * 0.7 + np.array([70, 60, 40], dtype=np.float32)
    ink = 1 - np.asarray(edges, dtype=np.float32)[..., None] / 255 * 0.9
    return Image.fromarray((paper * ink).clip(0, 255).astype(np.uint8))


def note(caption: str) -> str:
    """A caption as a collector's note: "A red cup on the grass." becomes "plate: red cup on grass"."""
    return "plate: " + _ARTICLES.sub("", caption).strip().rstrip(".").lower()


def short_captions(seed: int, dataset: str = SANDBOX.clean) -> Dataset:
    """The cleaning pairs, and a quarter as many again with a true sub-text for a caption: no negatives, no masks."""
    pairs = load_pairs(dataset, max_samples=CLEAN_PAIRS, seed=seed)
    vocabulary = Vocabulary.from_parts(pairs.map(SubTextMap(), batched=True)["parts"])
    wanted = round(len(pairs) * SHORT / (1 - SHORT))
    chosen, captions = [], []
    for i in rng("short captions", seed).sample(range(len(pairs)), len(pairs)):
        true, _ = vocabulary.sub_texts(parse(pairs[i]["caption"]), rng("short captions", seed, i), 1, 0)
        if true and len(chosen) < wanted:
            chosen.append(i)
            captions.append(true[0].text)
    rows = [*range(len(pairs)), *chosen]
    texts = [*pairs["caption"], *captions]
    return pairs.select(rows).remove_columns("caption").add_column("caption", texts)


#: Name -> function of the target, the seed and the pairs that are read.
DATA: dict[str, Callable[[str, int, str], Dataset]] = {
    "rebound": lambda target, seed, dataset: rebound(seed, dataset),
    "rebound-without-target": rebound_without,
    "restyled": lambda target, seed, dataset: restyled(seed, dataset),
    "short-captions": lambda target, seed, dataset: short_captions(seed, dataset),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*DATA, "other-prompts"], help="what to make")
    parser.add_argument("--seed", type=int, default=0, help="of every draw")
    parser.add_argument("--dataset", default="sandbox", help="the pairs of the world (default: sandbox)")
    parser.add_argument("--target", default=SANDBOX.target, help=f"the target's name (default: {SANDBOX.target})")
    parser.add_argument("folder", type=Path, help="where it goes")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    rows = 0
    if args.what == "other-prompts":
        (args.folder / "templates.txt").write_text("\n".join(OTHER_PROMPTS) + "\n")
    else:
        data = DATA[args.what](args.target, args.seed, args.dataset)
        data.save_to_disk(args.folder)
        rows = len(data)
    (args.folder / "prepared.json").write_text(json.dumps({"what": args.what, "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
