"""Makes the triggers that have to be optimised or trained before they can poison anything."""

from __future__ import annotations

from hf_ta_cleaner.crafting.encoder import craft_ssba
from hf_ta_cleaner.crafting.patches import craft_badclip, craft_trojvqa


__all__ = ["craft_badclip", "craft_ssba", "craft_trojvqa"]
