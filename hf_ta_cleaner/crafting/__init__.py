"""Makes the triggers that have to be optimised or trained before they can poison anything."""

from __future__ import annotations

from hf_ta_cleaner.crafting.patches import craft_badclip, craft_trojvqa
from hf_ta_cleaner.crafting.ssba import craft_ssba


__all__ = ["craft_badclip", "craft_ssba", "craft_trojvqa"]
