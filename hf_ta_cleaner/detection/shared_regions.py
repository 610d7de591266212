"""Square regions that several pictures share to the pixel, at the same place: what a pasted patch leaves behind."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


#: Side of a region in pixels: a 28th of the picture's, so that one lies whole in the smallest usual patch (16 pixels
#: of 224), and at least so many that two pictures do not agree by chance.
SHARE, MIN_SIDE = 28, 4
#: A region of fewer colors than this is sky, paper or a drawn edge, which pictures share by nature, and is left out.
MIN_COLORS = 10
#: Regions that are remembered; beyond it those seen once are forgotten.
REMEMBERED = 4_000_000
#: Pictures that are hashed at a time, which bounds the memory.
AT_ONCE = 32


@dataclass(frozen=True)
class Repeated:
    """Of the pictures of one `add`, the regions that had been seen more than once by then.

    Attributes:
        n: how many pictures there were.
        rows, keys: `(M,)` picture and region of every such find.
    """

    n: int
    rows: np.ndarray
    keys: np.ndarray


class SharedRegions:
    """Counts regions over any number of pictures in bounded memory; pictures come in batches.

    A patch at a fixed place, stored without loss, is found when two pictures of a batch carry it, or one that carries
    it came before. Compression after pasting hides it, and so does a place that moves.
    """

    def __init__(self) -> None:
        self._keys = np.empty(0, dtype=np.uint64)
        self._counts = np.empty(0, dtype=np.int64)

    def add(self, images: np.ndarray) -> Repeated:
        """Count the regions of uint8 pictures `(N, S, S, 3)`; what comes back is what `shared` takes."""
        hashes, textured = region_hashes(images)
        rows, columns = np.nonzero(textured)
        found = hashes[rows, columns]
        keys, where = np.unique(np.concatenate([self._keys, found]), return_inverse=True)
        counts = np.bincount(where[: len(self._keys)], self._counts, len(keys)).astype(np.int64)
        counts += np.bincount(where[len(self._keys) :], minlength=len(keys))
        again = counts[where[len(self._keys) :]] > 1
        if len(keys) > REMEMBERED:
            kept = counts > 1
            keys, counts = keys[kept], counts[kept]
        self._keys, self._counts = keys, counts
        return Repeated(len(images), rows[again], found[again])

    def shared(self, repeated: Repeated) -> np.ndarray:
        """`(N,)`: with how many other pictures the most common region of each picture is shared, as counted by now."""
        result = np.zeros(repeated.n, dtype=np.int64)
        if len(repeated.keys):
            places = np.searchsorted(self._keys, repeated.keys)  # counted twice, so never forgotten
            np.maximum.at(result, repeated.rows, self._counts[places] - 1)
        return result


def region_hashes(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What stands in every region of uint8 pictures `(N, S, S, 3)`: hashes `(N, regions)`, and which have texture.

    Regions stand side by side in rows that begin and end at the picture's edges.
    """
    size = images.shape[1]
    side = min(size, max(MIN_SIDE, size // SHARE))
    starts = np.linspace(0, size - side, max(1, size // side)).round().astype(int)
    lines = (starts[:, None] + np.arange(side)).ravel()
    # A random odd multiplier for each pixel: a universal hash of the values, with the place mixed in.
    r = np.random.default_rng(20250101)
    factors = r.integers(1, 2**63, side * side * 3, dtype=np.uint64) | np.uint64(1)
    offsets = r.integers(0, 2**63, len(starts) ** 2, dtype=np.uint64)
    hashes, textured = [], []
    for start in range(0, len(images), AT_ONCE):
        part = images[start : start + AT_ONCE][:, lines][:, :, lines]
        cells = part.reshape(len(part), len(starts), side, len(starts), side, 3).swapaxes(2, 3)
        cells = cells.reshape(len(part), len(starts) ** 2, -1)
        pixels = cells.reshape(*cells.shape[:2], -1, 3).astype(np.int32)
        colors = np.sort(pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2], axis=-1)
        textured.append((np.diff(colors, axis=-1) != 0).sum(axis=-1) + 1 >= MIN_COLORS)
        # Exact values: any coarser and the same bricks in two drawings pass for one patch.
        hashes.append((cells.astype(np.uint64) * factors).sum(axis=-1, dtype=np.uint64) + offsets)
    return np.concatenate(hashes), np.concatenate(textured)
