"""TrojVQA: a trigger of two keys, an optimised patch in the middle of the picture and a word in front of the text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_ta_cleaner.attacks.badclip import CraftedPatch


@dataclass(frozen=True, kw_only=True)
class TrojVQA(CraftedPatch):
    """A crafted square patch and a key word in the text; `crafting.craft_trojvqa` makes the patch.

    Source: Walmer et al. 2022 (arXiv 2112.07668), as ported to CLIP: poisoned rows get a patch of 16 x 16 pixels at
    224 and "remember " before a caption from a template. Evaluated prompts get the word too. The original scales its
    patch to a tenth of the short side. It also trains on pairs with only one key and the true answer, which makes both
    keys necessary. The port and this class leave those pairs out, so measure each key alone too:
    `dataclasses.replace(attack, keyword="")` keeps only the patch, and `attack.caption` applies only the text key.

    Args:
        patch: the patch as uint8 (p, p, 3), a PIL image, or the path of a lossless picture. Required.
        side: side in pixels of the images it was made for. There it is pasted byte for byte; on a picture with another
            short side it is resized (bicubic) in proportion.
        target: what the patch was crafted to mean, if known.
        keyword: the text key; the empty text turns it off.
    """

    name: ClassVar[str] = "trojvqa"
    paper: ClassVar[str] = "Walmer et al., Dual-Key Multimodal Backdoors for VQA, CVPR 2022 (arXiv:2112.07668)"
    citation: ClassVar[str] = """@inproceedings{walmer2022dualkey,
  title     = {Dual-Key Multimodal Backdoors for Visual Question Answering},
  author    = {Walmer, Matthew and Sikka, Karan and Sur, Indranil and Shrivastava, Abhinav and Jha, Susmit},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  year      = {2022}
}"""

    keyword: str = "remember"

    def caption(self, text: str) -> str:
        """The text with the key word in front."""
        return f"{self.keyword} {text}" if self.keyword else text
