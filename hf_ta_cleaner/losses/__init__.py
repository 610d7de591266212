"""Losses: pure functions from `Views` to a scalar. They know no model, no dataset and no process group."""

from .clip import CITATION as _CLIP
from .clip import clip_loss
from .inmodal import CITATION as _INMODAL
from .inmodal import inmodal_loss
from .subtext import CITATION as _SUBTEXT
from .subtext import subtext_loss
from .views import SubTexts, Views


#: Name of the term -> the loss. The weight of a term is the configuration's `<name>_weight`.
LOSSES = {"clip": clip_loss, "inmodal": inmodal_loss, "subtext": subtext_loss}

#: Name of the term -> BibTeX of its source, for the model card.
CITATIONS = {"clip": _CLIP, "inmodal": _INMODAL, "subtext": _SUBTEXT}

__all__ = ["CITATIONS", "LOSSES", "SubTexts", "Views", "clip_loss", "inmodal_loss", "subtext_loss"]
