"""A SigLIP of the sandbox, from its making to its report: backdoored with Blended, cleaned by four methods.

    python -m benchmarks.siglip             # run what is missing, then write benchmarks/siglip.md
    python -m benchmarks.siglip --table     # only write the table

The model has SigLIP's architecture (no class token, a pooling head, padded texts, a sigmoid loss with a bias) and the
blocks of the sandbox's CLIP to begin with; it learns to embed the sandbox's pictures and captions as that CLIP does,
the pairs that clean it later among them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import SCRIPTS
from benchmarks.harness.steps import Step, chain
from benchmarks.harness.worlds import SANDBOX as WORLD


HERE = Path(__file__).parent
PAIRS, EPOCHS, BATCH, RATE, LENGTH = 24_064, 4, 128, 1e-3, 32
METHODS = ("ft", "cleanclip", "ta-cleaner", "ta-cleaner-plus")


def build() -> tuple[Any, Any]:
    """An untrained SigLIP with the sandbox CLIP's blocks, and its processor."""
    import torch
    from transformers import SiglipConfig, SiglipModel, SiglipProcessor
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    from hf_ta_cleaner.models.checkpoints import load_model

    clip, processor = load_model("sandbox")
    text, vision, images = clip.config.text_config, clip.config.vision_config, processor.image_processor
    tokenizer = processor.tokenizer
    tokenizer.model_max_length = LENGTH

    def like(config: Any, *more: str) -> dict[str, Any]:
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act", *more)
        return {name: getattr(config, name) for name in names}

    words = like(text, "vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")
    config = SiglipConfig(
        text_config={**words, "max_position_embeddings": LENGTH},
        vision_config=like(vision, "image_size", "patch_size"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = SiglipModel(config)
    theirs, own = clip.state_dict(), model.state_dict()
    own |= {name: weight for name, weight in theirs.items() if name in own and own[name].shape == weight.shape}
    places = "{}_model.embeddings.position_embedding.weight".format
    own |= {places("vision"): theirs[places("vision")][1:], places("text"): theirs[places("text")][:LENGTH]}
    model.load_state_dict(own)
    square = {"height": vision.image_size, "width": vision.image_size}
    normal = {"image_mean": images.image_mean, "image_std": images.image_std}
    return model, SiglipProcessor(SiglipImageProcessorPil(size=square, resample=3, **normal), tokenizer)


def make(folder: Path) -> None:
    """Trains it, the sandbox's CLIP as teacher of both towers, and sets temperature and bias for its own loss."""
    import torch
    from torch.nn.functional import cosine_similarity

    from hf_ta_cleaner import sandbox
    from hf_ta_cleaner.models.checkpoints import load_model, save_model
    from hf_ta_cleaner.models.zero_shot import image_features, pixel_values, text_features

    teacher, its_processor = load_model("sandbox")
    model, processor = build()
    pairs = sandbox.pairs("clean", PAIRS)
    pictures = np.stack([np.asarray(image) for image in pairs["image"]])
    captions = [*pairs["caption"], *(f"a photo of a {name}." for name in sandbox.CLASSES)]
    pictured = image_features(teacher, its_processor, pictures)
    told = text_features(teacher, its_processor, captions)
    tokens = processor.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    draws, steps = np.random.default_rng(0), PAIRS // BATCH * EPOCHS
    rise = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda i: min((i + 1) / 50, (1 + math.cos(math.pi * i / steps)) / 2)
    )
    model.train()
    for _ in range(EPOCHS):
        for rows in draws.permutation(PAIRS).reshape(-1, BATCH):
            texts = draws.choice(len(captions), BATCH, replace=False)
            images = pixel_values(processor, pictures[rows])
            seen = model.get_image_features(pixel_values=images).pooler_output
            read = model.get_text_features(input_ids=tokens[texts]).pooler_output
            likeness = cosine_similarity(seen, pictured[rows]).mean() + cosine_similarity(read, told[texts]).mean()
            model.zero_grad()
            (-likeness).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            rise.step()
    model.logit_scale.data.fill_(teacher.logit_scale.item())
    with torch.no_grad():
        some = range(0, PAIRS, PAIRS // 512)
        likeness = (
            image_features(model, processor, pictures[some])
            @ text_features(model, processor, [captions[i] for i in some]).T
        )
        others = likeness[~torch.eye(len(likeness), dtype=torch.bool)]
        middle = (likeness.diagonal().mean() + others.quantile(0.98)) / 2  # a pair lies above, what is none below
        model.logit_bias.data.fill_(-(model.logit_scale.exp() * middle).item())
    save_model(model.eval(), processor, folder)


def plan(out: Path) -> list[list[Step]]:
    """What makes the suspect, one step after the other; then one step for each method, side by side."""
    model, config = out / "siglip", SCRIPTS / "configs"
    made = chain(
        (str(PAIRS), str(EPOCHS)),
        (("-m", "benchmarks.siglip", "--make", str(model)), "model.safetensors"),
        ((str(SCRIPTS / "poison.py"), "--dataset", "sandbox", "--max_samples", "35000", "--attack", "blended",
          "--target", WORLD.target, "--rate", "0.05", "--model", str(model), "--output_dir", str(out / "poisoned")),
         "poison.json"),
        ((str(SCRIPTS / "backdoor.py"), "--model", str(model), "--dataset", str(out / "poisoned"), "--eval_dataset",
          "sandbox", "--config", str(config / "sandbox_backdoor.yaml"), "--output_dir", str(out / "backdoored")),
         "poison.json"),
    )  # fmt: skip
    mark = (*made[-1].mark, *made[-1].command)
    proof = ("--eval_dataset", "sandbox", "--reference", str(model))
    data = ("--dataset", "sandbox", "--allow_sandbox_data", "--max_samples", "10000")
    clean = (str(SCRIPTS / "clean.py"), "--model", str(out / "backdoored"), *data, *proof)
    settings = ("--config", str(config / "sandbox_clean.yaml"))
    cells = [
        Step((*clean, *settings, "--method", name, "--output_dir", str(out / name)), "report.json", mark=mark)
        for name in METHODS
    ]
    return [made, cells]


def table(reports: dict[str, dict[str, Any]]) -> str:
    """siglip.md, from the report of every method."""
    before = next(iter(reports.values()))["before"]
    lines = ["| method | ASR@1 [95% interval] | ASR@10 | never-poisoned ASR@1 | CA |", "|---|---:|---:|---:|---:|"]
    for name, section in [("none", before), *((name, report["after"]) for name, report in reports.items())]:
        (entry,) = section["attacks"].values()
        low, high = entry["interval95"]["asr_top1"]
        rates = (
            f"{100 * entry['asr']['top1']:.1f} [{100 * low:.1f}, {100 * high:.1f}] | {100 * entry['asr']['top10']:.1f}"
        )
        rest = f"{100 * entry['reference_asr']['top1']:.1f} | {100 * section['clean_accuracy']['top1']:.1f}"
        lines.append(f"| {name} | {rates} | {rest} |")
    n = next(iter(before["attacks"].values()))["n"]
    return "\n".join(
        [
            "# A SigLIP of the sandbox",
            "",
            "`python -m benchmarks.siglip`. Blended towards banana at 5%, cleaned on 10,000 pairs for two epochs at "
            f"strength 1, which the model had seen when it was made; n = {n:,}, one seed, per cent.",
            "",
            *lines,
            "",
        ]
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--make", type=Path, metavar="PATH", help="only make the SigLIP, in this folder")
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/siglip"), help="folder of the steps")
    args = parser.parse_args(argv)
    if args.make:
        make(args.make)
        return
    made, cells = plan(args.output_dir)
    if not args.table:
        for step in made:
            step.run(threads=os.cpu_count() or 1)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(Step.run, cells))
    reports = {step.folder.name: json.loads((step.folder / "report.json").read_text()) for step in cells}
    (HERE / "siglip.md").write_text(table(reports))
    print(table(reports))


if __name__ == "__main__":
    main()
