"""open_clip's names of pretrained models, `ARCHITECTURE:TAG`, and where on the Hub each of them lies."""

from __future__ import annotations

from ..downloads import CheckpointError


#: Architecture -> (stem of the repositories, their tags): the repository is `timm/STEM.TAG`.
_TIMM = {
    "RN50": ("resnet50_clip", "openai yfcc15m cc12m"),
    "RN101": ("resnet101_clip", "openai yfcc15m"),
    "RN50x4": ("resnet50x4_clip", "openai"),
    "RN50x16": ("resnet50x16_clip", "openai"),
    "RN50x64": ("resnet50x64_clip", "openai"),
    "ViT-B-32": (
        "vit_base_patch32_clip_224",
        "openai laion400m_e31 laion400m_e32 laion2b_e16 metaclip_400m metaclip_2pt5b",
    ),
    "ViT-B-16": ("vit_base_patch16_clip_224", "openai laion400m_e31 laion400m_e32 metaclip_400m metaclip_2pt5b"),
    "ViT-L-14": ("vit_large_patch14_clip_224", "openai laion400m_e31 laion400m_e32 metaclip_400m metaclip_2pt5b"),
    "ViT-L-14-336": ("vit_large_patch14_clip_336", "openai"),
    "ViT-H-14": ("vit_huge_patch14_clip_224", "metaclip_2pt5b metaclip_altogether"),
    "ViT-bigG-14": ("vit_gigantic_patch14_clip_224", "metaclip_2pt5b"),
}
#: Those that their makers keep themselves.
_ELSEWHERE = {
    "ViT-B-32:laion2b_s34b_b79k": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "ViT-B-32:datacomp_xl_s13b_b90k": "laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K",
    "ViT-B-32-256:datacomp_s34b_b86k": "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K",
    "ViT-B-16:laion2b_s34b_b88k": "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
    "ViT-B-16:datacomp_xl_s13b_b90k": "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K",
    "ViT-B-16:dfn2b": "apple/DFN2B-CLIP-ViT-B-16",
    "ViT-L-14:laion2b_s32b_b82k": "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
    "ViT-L-14:datacomp_xl_s13b_b90k": "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K",
    "ViT-L-14:dfn2b": "apple/DFN2B-CLIP-ViT-L-14",
    "ViT-H-14:laion2b_s32b_b79k": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    "ViT-H-14:dfn5b": "apple/DFN5B-CLIP-ViT-H-14",
    "ViT-g-14:laion2b_s34b_b88k": "laion/CLIP-ViT-g-14-laion2B-s34B-b88K",
    "ViT-bigG-14:laion2b_s39b_b160k": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
}
PRETRAINED: dict[str, str] = _ELSEWHERE | {
    f"{architecture}:{tag}": f"timm/{stem}.{tag}"
    for architecture, (stem, tags) in _TIMM.items()
    for tag in tags.split()
}


def hub_id(name: str) -> str:
    """The Hub repository of a name; a name that is not `ARCHITECTURE:TAG` is returned as it is.

    `-quickgelu` behind the architecture is left out: the repository's config says it.

    Raises:
        CheckpointError: open_clip has no such model, or it is none that is imported here.
    """
    architecture, colon, tag = name.partition(":")
    if not colon or "/" in name or "\\" in name:
        return name
    key = f"{architecture.removesuffix('-quickgelu')}:{tag}"
    if key not in PRETRAINED:
        architecture = key.split(":")[0]
        tags = [known.split(":")[1] for known in PRETRAINED if known.split(":")[0] == architecture]
        architectures = sorted({known.split(":")[0] for known in PRETRAINED})
        known = f"its tags: {', '.join(tags)}" if tags else f"the architectures: {', '.join(architectures)}"
        raise CheckpointError(f"'{name}' is none of open_clip's pretrained models that are known here; {known}.")
    return PRETRAINED[key]
