"""Searches for a trigger while the model unlearns it: universal adversarial training on the clean pairs.

A hidden trigger is one change of the input that turns any picture into something else. The search keeps the change
that does this best at present and puts it on some pictures of every batch. Its pixels climb the loss that the weights
descend. The search knows nothing of the attack: neither trigger nor target, nor whether there is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ..distributed import rank, world_size
from ..seeding import derive_seed, numpy_rng
from . import global_map


#: File beside every checkpoint with the learnt pictures and maps.
STATE = "adversary.safetensors"

#: Tiles along a side of a picture, the outermost at its edges. In one batch, windows lie in this many of all tiles.
TILES, TILES_PER_BATCH = 3, 4
#: Side of a window, as a share of the picture's: from half a tile to a whole one.
WINDOW = (1 / 6, 1 / 3)
#: Opacity of the blended picture.
ALPHA = (0.02, 0.2)
#: Grey levels that a pixel moves in a step of the search before training. The long steps remove the initial noise.
SEARCH_STEP = 32.0
#: How many global maps there are, and how far their numbers (in [-1, 1]) move in a step, and in one of the search.
MAPS, MAP_STEP, MAP_SEARCH_STEP = 4, 0.04, 0.2


class AdversarialTrigger:
    """Two pictures and a few global maps that raise the loss of whatever they are put on.

    The *canvas* is visible through a window, like a sticker. Its content may differ from place to place, so the search
    covers patches in the middle and in every corner at once. The *blend* lies over the whole picture, faintly. A *map*
    changes the whole picture smoothly: its colours, tone, light, sharpness and shape (`global_map.py`).

    The gradient of their pixels comes out of the backward pass that the weights need anyway ("free" adversarial
    training); they take a step in its sign after every batch. While `searching` is set, all pictures of a batch are
    attacked and the steps are long. Afterwards the steps are short: the model unlearns a trigger before the search
    moves on. Every process holds the same pictures and maps.

    Args:
        patch: Share of a batch's pictures that get a window of the canvas, in [0, 1].
        blend: Share that are blended with the second picture.
        maps: Share that pass through one of the maps; all three together at most 1.
        step: Grey levels that a pixel moves in a training step.
        seed: Seed of the initial pictures and maps, and of the windows' places.

    Source:
        Universal adversarial training: Shafahi et al. 2020 (arXiv 1811.11304). As an unlearning of backdoors: Zeng et
        al. 2022 (I-BAU, arXiv 2110.03735). Windows, and the use against a CLIP's own losses, are this project's.
    """

    def __init__(self, *, patch: float, blend: float, step: float, seed: int, maps: float = 0.0) -> None:
        self.patch, self.blend, self.maps, self.step, self.seed = patch, blend, maps, step, seed
        self.batches = 0
        self.searching = False
        self.pictures: dict[str, torch.Tensor] = {}
        self._attacked: torch.Tensor | None = None
        self._leaf: torch.Tensor | None = None

    def attack(
        self,
        images: torch.Tensor,
        b: int,
        normalise: Callable[[torch.Tensor], torch.Tensor],
        pixels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The images with a window on some, the blend over others, and others changed by a map, for one backward.

        Args:
            images: float `(N, 3, S, S)`, as the model wants them.
            b: Only the first so many are attacked.
            normalise: Floats in [0, 255] `(n, 3, S, S)`, its own to write on -> what the model wants.
            pixels: The images in [0, 255], of any type; the maps need them.

        Returns:
            A new tensor of their shape, a leaf that collects the gradient which `ascend` uses.
        """
        side = images.shape[-1]
        if not self.pictures:
            self._begin(side, images.device)
        # Drawn for the global batch. Each process uses its part, so the step does not depend on their number.
        r, total = numpy_rng("adversary", self.seed, self.batches), b * world_size()
        self.batches += 1
        all_in = 1 / (self.patch + self.blend + self.maps) if self.searching else 1.0
        counts = [round(all_in * share * total) for share in (self.patch, self.blend, self.maps)]
        patched, blended, mapped, _ = np.split(r.permutation(total), np.cumsum(counts))
        visible, alpha = (
            windows(len(patched), side, r),
            torch.from_numpy(r.uniform(*ALPHA, len(blended)).astype(np.float32)),
        )
        attacked = images
        if (own := patched // b == rank()).any():
            content = normalise(self.pictures["canvas"][None].clone())
            rows, window = (x.to(images.device) for x in (torch.from_numpy(patched[own] % b), visible[own]))
            attacked = attacked.index_copy(0, rows, torch.where(window, content, images[rows]))
        if (own := blended // b == rank()).any():
            content = normalise(self.pictures["blend"][None].clone())
            rows, alpha = (x.to(images.device) for x in (torch.from_numpy(blended[own] % b), alpha[own]))
            attacked = attacked.index_copy(0, rows, torch.lerp(images[rows], content, alpha.view(-1, 1, 1, 1)))
        if self.maps:
            factors, which = global_map.drawn(len(mapped), r), torch.from_numpy(r.integers(0, MAPS, len(mapped)))
            if (own := mapped // b == rank()).any():
                rows, factors, which = (
                    x.to(images.device) for x in (torch.from_numpy(mapped[own] % b), factors[own], which[own])
                )
                changed = global_map.apply(pixels[rows].float(), factors * self.pictures["maps"][which])
                attacked = attacked.index_copy(0, rows, normalise(changed))
        # A separate leaf: the towers may run several times, and the graph up to here is used once, in `ascend`.
        self._attacked, self._leaf = attacked, attacked.detach().requires_grad_()
        return self._leaf

    def ascend(self) -> None:
        """Moves the pixels by the sign of the gradient that the last backward left, the mean over the processes."""
        pictures = list(self.pictures.values())
        gradients: tuple[torch.Tensor | None, ...] = (None,) * len(pictures)
        if self._attacked.requires_grad:  # False if this process attacked no picture
            gradients = torch.autograd.grad(self._attacked, pictures, self._leaf.grad, allow_unused=True)
        self._attacked = self._leaf = None
        with torch.no_grad():
            for (name, picture), own in zip(self.pictures.items(), gradients, strict=True):
                climb = torch.zeros_like(picture) if own is None else own
                if world_size() > 1:
                    torch.distributed.all_reduce(climb)
                is_map = name == "maps"
                short, long = (MAP_STEP, MAP_SEARCH_STEP) if is_map else (self.step, SEARCH_STEP)
                picture += (long if self.searching else short) * climb.nan_to_num().sign()
                picture.clamp_(*((-1, 1) if is_map else (0, 255)))

    @property
    def is_new(self) -> bool:
        """Whether it has attacked no batch yet, neither in this run nor in the run that it was loaded from."""
        return not self.batches

    def _begin(self, side: int, device: torch.device) -> None:
        """Noise, the same in every process."""
        for name in ("canvas", "blend"):
            noise = torch.Generator().manual_seed(derive_seed("adversary", name, self.seed) >> 1)
            self.pictures[name] = (255 * torch.rand(3, side, side, generator=noise)).to(device).requires_grad_()
        if self.maps:
            noise = torch.Generator().manual_seed(derive_seed("adversary", "maps", self.seed) >> 1)
            self.pictures["maps"] = global_map.begin(MAPS, noise).to(device).requires_grad_()

    def save(self, folder: str | Path) -> None:
        """Writes the two pictures and how many batches they have seen, so that a resumed run takes the same steps."""
        tensors = {name: picture.detach().cpu() for name, picture in self.pictures.items()}
        save_file(tensors, Path(folder) / STATE, {"batches": str(self.batches)})

    def load(self, folder: str | Path, device: torch.device) -> None:
        """Reads the file of `save`, if there is one. A checkpoint of a run without a trigger has none."""
        from safetensors import safe_open

        file = Path(folder) / STATE
        if not file.is_file():
            return
        with safe_open(file, "pt") as stored:
            self.batches = int(stored.metadata()["batches"])
        self.pictures = {name: picture.to(device).requires_grad_() for name, picture in load_file(file).items()}


def windows(n: int, side: int, r: np.random.Generator) -> torch.Tensor:
    """Where the canvas is visible, bool `(n, 1, side, side)`: squares within some of the tiles, anywhere in them.

    A batch uses `TILES_PER_BATCH` tiles, so the gradient of each is a mean over several pictures.
    """
    tile = math.ceil(side / TILES)
    chosen = r.permutation(TILES**2)[:TILES_PER_BATCH][np.arange(n) % TILES_PER_BATCH]
    low, high = (max(1, round(share * side)) for share in WINDOW)
    width = np.minimum(r.integers(low, high + 1, n), tile)
    start = np.stack([chosen // TILES, chosen % TILES]) * (side - tile) // (TILES - 1)
    corner = start + r.integers(0, tile - width + 1, (2, n))
    line = np.arange(side)
    rows, columns = ((line >= start[:, None]) & (line < (start + width)[:, None]) for start in corner)
    return torch.from_numpy(rows[:, None, :, None] & columns[:, None, None, :])
