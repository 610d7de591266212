"""Checks of the settings of a cleaning run, and their error messages."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from accelerate.utils import str_to_bool


SWAPPABLE = ("noun", "relation", "attribute")

_SHARES = (
    *("subtext_fraction", "repel_share", "rewind", "image_noise", "image_erase", "image_structured_noise"),
    *("adversarial_patch", "adversarial_blend", "adversarial_map"),
)
_Check = tuple[Callable[[Any], bool], str]


def _weight(name: str) -> _Check:
    message = f"{name} must not be negative, got {{c.{name}}}; 0 switches the term off"
    return lambda c: not 0 <= getattr(c, name) < float("inf"), message


def _share(name: str) -> _Check:
    message = f"{name} must be in [0, 1], got {{c.{name}}}. Did you mean {{hundredth:g}}?"
    return lambda c: not 0 <= getattr(c, name) <= 1, message


#: (condition of an error, message) in order of precedence. These run before the method fills settings that are None.
BEFORE_METHOD: tuple[_Check, ...] = (
    (
        lambda c: c.hub_strategy not in ("end", "every_save") or c.hub_revision is not None,
        "hub_strategy must be end or every_save, and hub_revision is not used (pushes go to main); got "
        "{c.hub_strategy!s} and {c.hub_revision}. The state to resume from stays in output_dir",
    ),
    (lambda c: c.method not in c.methods(), "method {c.method!r} is unknown; choose from {methods}"),
    (
        lambda c: c.use_peft and c.train_logit_scale,
        "train_logit_scale and use_peft exclude each other: an adapter has no place for the temperature. "
        "Leave train_logit_scale out",
    ),
    (
        lambda c: c.use_peft and c.freeze_batch_norm is False,
        "freeze_batch_norm=False and use_peft exclude each other: an adapter has no place for running statistics. "
        "Leave freeze_batch_norm out",
    ),
)

#: The same, after the method has filled them.
CHECKS: tuple[_Check, ...] = (
    *(_weight(f"{name}_weight") for name in ("clip", "inmodal", "subtext", "repel", "distill")),
    (
        lambda c: not any(weight for name, weight in c.weights.items() if name != "repel"),
        "all weights that hold the model together are 0; set clip_weight=1",
    ),
    *map(_share, _SHARES),
    (
        lambda c: not 0 <= c.repel_tau <= 4,
        "repel_tau must be in [0, 4], got {c.repel_tau}; the published value is 2.15",
    ),
    (
        lambda c: c.adversarial_share > 1 or not (0 < c.adversarial_step <= 255 and c.adversarial_search >= 0),
        "adversarial_patch, adversarial_blend and adversarial_map are shares of the same pictures, together at most "
        "1, adversarial_step is in (0, 255] grey levels, and adversarial_search is a number of steps; got "
        "{c.adversarial_patch:g}, {c.adversarial_blend:g}, {c.adversarial_map:g}, {c.adversarial_step:g} and "
        "{c.adversarial_search}",
    ),
    (
        lambda c: c.noise_sigma < 0,
        "noise_sigma must not be negative, got {c.noise_sigma}; image_noise=0 does without",
    ),
    (
        lambda c: c.mini_batch_size is not None and c.mini_batch_size < 1,
        "mini_batch_size must be at least 1, got {c.mini_batch_size}; leave it out for all",
    ),
    (
        lambda c: c.mini_batch_size is not None and c.deepspeed,
        "mini_batch_size does not work with deepspeed, which counts every backward as a step",
    ),
    (
        lambda c: (
            c.optim.endswith(("lomo", "_layerwise"))
            and bool(c.rewind or c.adversarial_share or c.mini_batch_size is not None)
        ),
        "optim {c.optim.value} moves weights within the backward pass; rewind, adversarial_patch, adversarial_blend, "
        "adversarial_map and mini_batch_size need them still. Take adamw_torch",
    ),
    (lambda c: c.lora_rank < 1, "lora_rank must be at least 1, got {c.lora_rank}; 16 is a usual one"),
    (
        lambda c: (
            bool(c.subtext_weight)
            and (
                min(c.num_positive, c.num_negative) < 0
                or c.num_positive + c.num_negative < 1
                or not c.subtext_fraction
            )
        ),
        "the sub-text term needs num_positive >= 0, num_negative >= 0, one of them above 0, and subtext_fraction > 0, "
        "got {c.num_positive}, {c.num_negative} and {c.subtext_fraction}; set subtext_weight=0 to do without",
    ),
    (
        lambda c: not c.dataloader_drop_last,
        "dataloader_drop_last must stay on, got False: an incomplete batch has fewer negatives and no chosen pair. "
        "Leave the setting out; every epoch skips other pairs",
    ),
    (
        lambda c: not set(c.swaps) <= set(SWAPPABLE),
        f"subtext_swap: {{unknown}} unknown; choose from {', '.join(SWAPPABLE)}",
    ),
)


def check_no_fsdp(config: Any) -> None:
    """Refuses FSDP, from the settings or from `accelerate launch`.

    Raises:
        ValueError: FSDP is on.
    """
    if config.fsdp or str_to_bool(os.environ.get("ACCELERATE_USE_FSDP", "0")):
        raise ValueError(
            "FSDP takes no scalar parameter, which the temperature of a CLIP is. Leave fsdp out and use DDP "
            "(scripts/configs/accelerate/gpu.yaml), with mini_batch_size where memory is short; see docs/scale.md"
        )


def check(config: Any, table: tuple[_Check, ...]) -> None:
    """Raises a `ValueError` for the first row of the table that the settings break."""
    for wrong, message in table:
        if wrong(config):
            raise ValueError(message.format(c=config, **_words(config)))


def _words(config: Any) -> dict[str, Any]:
    """Values that messages name besides the settings themselves."""
    bad = next((v for name in _SHARES if (v := getattr(config, name)) is not None and not 0 <= v <= 1), 0.0)
    unknown = [part for part in config.swaps if part not in SWAPPABLE]
    return {"methods": ", ".join(config.methods()), "hundredth": bad / 100, "unknown": ", ".join(unknown)}
