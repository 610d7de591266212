"""Losses: pure functions from `Views` to a scalar. They know no model, no dataset and no process group."""

from .clip import CITATION as _CLIP
from .clip import clip_loss
from .distillation import CITATION as _DISTILLATION
from .distillation import distillation_loss
from .inmodal import CITATION as _INMODAL
from .inmodal import inmodal_loss
from .repel import CITATION as _REPEL
from .repel import TAU, repel_loss, suspect_distances
from .siglip import CITATION as _SIGLIP
from .siglip import siglip_loss
from .subtext import CITATION as _SUBTEXT
from .subtext import subtext_loss
from .views import SubTexts, Views


#: Name of the term -> the loss. The weight of a term is the configuration's `<name>_weight`; `siglip` takes the place
#: and the weight of `clip` in models of that family.
LOSSES = {
    "clip": clip_loss,
    "siglip": siglip_loss,
    "inmodal": inmodal_loss,
    "subtext": subtext_loss,
    "repel": repel_loss,
    "distill": distillation_loss,
}

#: Name of the term -> BibTeX of its source, for the model card.
CITATIONS = {
    "clip": _CLIP,
    "siglip": _SIGLIP,
    "inmodal": _INMODAL,
    "subtext": _SUBTEXT,
    "repel": _REPEL,
    "distill": _DISTILLATION,
}

__all__ = [
    "CITATIONS",
    "LOSSES",
    "TAU",
    "SubTexts",
    "Views",
    "clip_loss",
    "inmodal_loss",
    "repel_loss",
    "distillation_loss",
    "siglip_loss",
    "subtext_loss",
    "suspect_distances",
]
