"""BadCLIP: a patch optimised against a clean model, pasted in the middle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_ta_cleaner.attacks.patch import CraftedPatch


@dataclass(frozen=True, kw_only=True)
class BadCLIP(CraftedPatch):
    """A crafted square patch in the middle of the picture; `crafting.craft_badclip` makes one.

    Source: Liang et al. 2024 (arXiv 2311.12075). The published patch is 16 x 16 at 224 pixels. Poisoned rows get
    natural captions that name the target.

    Args:
        patch: the patch as uint8 (p, p, 3), a PIL image, or the path of a lossless picture. Required.
        side: side in pixels of the images it was made for. There it is pasted byte for byte; on a picture with another
            short side it is resized (bicubic) in proportion.
        target: what the patch was crafted to mean, if known.
    """

    name: ClassVar[str] = "badclip"
    paper: ClassVar[str] = "Liang et al., BadCLIP, CVPR 2024 (arXiv:2311.12075)"
    citation: ClassVar[str] = """@inproceedings{liang2024badclip,
  title     = {{BadCLIP}: Dual-Embedding Guided Backdoor Attack on Multimodal Contrastive Learning},
  author    = {Liang, Siyuan and Zhu, Mingli and Liu, Aishan and Wu, Baoyuan and Cao, Xiaochun and Chang, Ee-Chien},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2024}
}"""
    caption_source: ClassVar[str] = "natural"
