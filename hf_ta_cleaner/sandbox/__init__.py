"""The embedded world: drawn, captioned pictures and a tiny CLIP trained on them. It stands in for the Hub.

from hf_ta_cleaner import sandbox
sandbox.pairs("clean", 5000)      # image, caption
sandbox.labelled(2000)            # image, label
CLIPModel.from_pretrained(sandbox.CHECKPOINT)
"""

from pathlib import Path

from .captions import caption
from .dataset import SPLITS, labelled, labelled_scene, pair_scene, pairs
from .scene import CLASSES, PICTURE_SIZE, Scene, Thing, compose
from .truth import holds


#: Folder of the shipped tiny CLIP, in the ordinary Hub format.
CHECKPOINT = Path(__file__).parent / "checkpoint"


def is_sandbox(processor) -> bool:
    """Whether a checkpoint descends from the sandbox's: it reads the same words and the same size of picture."""
    from transformers import AutoTokenizer

    vocabulary = AutoTokenizer.from_pretrained(CHECKPOINT).get_vocab()
    return processor.tokenizer.get_vocab() == vocabulary


__all__ = [
    "CHECKPOINT",
    "CLASSES",
    "PICTURE_SIZE",
    "SPLITS",
    "Scene",
    "Thing",
    "caption",
    "compose",
    "holds",
    "is_sandbox",
    "labelled",
    "labelled_scene",
    "pair_scene",
    "pairs",
]
