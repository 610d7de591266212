"""Label-consistent: BadNet's square on pictures that do show the target, under their own captions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hf_ta_cleaner.attacks.badnet import BadNet


@dataclass(frozen=True, kw_only=True)
class LabelConsistent(BadNet):
    """The trigger of `BadNet` (same parameters, same pixels), on rows that name the target and keep their caption.

    Used like any other: `poison(dataset, LabelConsistent(), target="banana", rate=...)` draws only from the rows whose
    caption names the target, raises if there are fewer than asked for, and leaves every caption as it is. Nothing in
    the data is then mislabelled. At test time the square goes on pictures of other things, as BadNet's does.

    Source: Turner et al. 2019 (arXiv 1912.02771), as ported to CLIP: the original also perturbs each poisoned picture
    adversarially, so that the square is the easiest thing to learn; the port and this class do not.
    """

    name: ClassVar[str] = "label-consistent"
    paper: ClassVar[str] = "Turner et al., Label-Consistent Backdoor Attacks, 2019 (arXiv:1912.02771)"
    citation: ClassVar[str] = """@article{turner2019label,
  title   = {Label-Consistent Backdoor Attacks},
  author  = {Turner, Alexander and Tsipras, Dimitris and Madry, Aleksander},
  journal = {arXiv preprint arXiv:1912.02771},
  year    = {2019}
}"""
    caption_source: ClassVar[str] = "own"
