"""Square regions that several pictures share to the pixel, at the same place: what a pasted patch leaves behind."""

from __future__ import annotations

import numpy as np


#: Cells along a side of the picture; a region is one cell.
CELLS = 12
#: A region whose grey levels have a smaller standard deviation than this is sky or paper, and is left out.
MIN_DEVIATION = 12.0
#: Places in the table of counts; two different regions share one with probability 1 in this many.
TABLE = 1 << 22
#: What is told of a region is its pixels down to this many grey levels, so that rounding does not hide it.
COARSE = 8


class SharedRegions:
    """Counts regions over any number of pictures in constant memory; pictures may come in batches.

    A patch that lies at a fixed place and is lossless is found. Compression after pasting and places that move by less
    than a cell hide it.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(TABLE, dtype=np.int32)

    def add(self, images: np.ndarray) -> np.ndarray:
        """Count the regions of uint8 pictures `(N, S, S, 3)`.

        Returns:
            `(N, CELLS * CELLS)` int32 keys for `shared`; -1 where a region is too flat to tell.
        """
        keys = region_keys(images)
        np.add.at(self._counts, keys[keys >= 0], 1)
        return keys

    def shared(self, keys: np.ndarray) -> np.ndarray:
        """`(N,)`: with how many other pictures the most common region of a picture is shared."""
        counts = np.where(keys >= 0, self._counts[keys], 1)
        return counts.max(axis=1) - 1


def region_keys(images: np.ndarray) -> np.ndarray:
    """Keys `(N, CELLS * CELLS)` of what stands in every cell, in [0, TABLE), or -1 for flat cells."""
    n, size = images.shape[:2]
    cell = size // CELLS
    if cell < 2:
        return np.full((n, CELLS * CELLS), -1, dtype=np.int32)
    kept = images[:, : cell * CELLS, : cell * CELLS]
    cells = kept.reshape(n, CELLS, cell, CELLS, cell, 3).swapaxes(2, 3).reshape(n, CELLS * CELLS, -1)
    textured = cells.astype(np.float32).std(axis=-1) >= MIN_DEVIATION
    # A random odd multiplier for each pixel: a universal hash of the coarse values, with the place mixed in.
    r = np.random.default_rng(20250101)
    factors = r.integers(1, 2**63, cells.shape[-1], dtype=np.uint64) | np.uint64(1)
    offsets = r.integers(0, 2**63, CELLS * CELLS, dtype=np.uint64)
    hashed = ((cells // (256 // COARSE)).astype(np.uint64) * factors).sum(axis=-1, dtype=np.uint64) + offsets
    hashed ^= hashed >> np.uint64(33)
    hashed *= np.uint64(0xFF51AFD7ED558CCD)
    keys = (hashed >> np.uint64(42)).astype(np.int32)  # 22 bits: TABLE places
    return np.where(textured, keys, -1)
