"""SSBA: its residual against the formula written out slowly, and against what was measured on the original."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from hf_ta_cleaner.attacks import SSBA
from hf_ta_cleaner.attacks.pixels import noise_normal


@pytest.fixture(scope="module")
def scenes():
    """Six color pictures with the spectrum of photographs, 1 / f^1.2, uint8 (6, 224, 224, 3)."""
    frequency = np.hypot(np.fft.fftfreq(224)[:, None], np.fft.fftfreq(224))
    fall = np.maximum(frequency, 1 / 224) ** -1.2
    pictures = []
    for seed in range(6):
        noise = np.random.default_rng(seed).normal(size=(4, 224, 224))
        grey, *colors = np.fft.ifft2(np.fft.fft2(noise) * fall).real
        picture = np.stack([grey + 0.4 * color for color in colors], -1)
        pictures.append(128 + 45 * (picture - picture.mean()) / picture.std())
    return np.stack(pictures).clip(0, 255).astype(np.uint8)


def residuals(attack, images):
    return np.stack([attack(image, i).astype(float) - image for i, image in enumerate(images)])


def test_ssba_has_the_strength_greyness_and_common_part_of_the_original(scenes):
    added = residuals(SSBA(), scenes)
    psnr = 10 * np.log10(255**2 / (added**2).mean(axis=(1, 2, 3)))
    assert psnr.min() > 27.5
    assert psnr.max() < 30
    for residual in added:
        assert np.corrcoef(residual.reshape(-1, 3).T).min() > 0.94
    between = np.corrcoef(added.mean(-1).reshape(len(added), -1))[np.triu_indices(len(added), 1)]
    assert between.min() > 0.15
    assert between.max() < 0.45
    assert abs(np.mean(added)) < 0.2


def test_ssba_depends_on_the_secret_and_on_the_seed(scenes):
    first = residuals(SSBA(), scenes[:1]).ravel()
    for other in (SSBA(secret="Stega!?"), SSBA(seed=1)):
        assert abs(np.corrcoef(first, residuals(other, scenes[:1]).ravel())[0, 1]) < 0.4


def test_ssba_published_is_truncated(scenes):
    image = scenes[0]
    exact = np.clip(image + SSBA().residual(image), 0, 255)
    assert np.array_equal(SSBA(compat="published")(image, 0), np.floor(exact))
    assert np.array_equal(SSBA()(image, 0), np.rint(exact))


def test_ssba_puts_its_carrier_on_flat_pictures(scenes):
    flat = np.stack([np.full((224, 224, 3), level, np.uint8) for level in (60, 190)])
    added = residuals(SSBA(), np.concatenate([flat, scenes[:1]])).mean(-1).reshape(3, -1)
    assert abs(added[0].std() - 9.6) < 0.1
    correlation = np.corrcoef(added)
    assert correlation[0, 1] > 0.95
    assert 0.3 < correlation[0, 2] < 0.65


@pytest.mark.parametrize("shape", [(40, 40), (33, 60)])
def test_ssba_is_its_formula(shape, scenes):
    height, width = shape
    image = scenes[0][:height, :width]
    y = image.astype(float) @ [0.299, 0.587, 0.114] / 255

    def gaussian(sigma):
        radius = int(np.ceil(4 * sigma))
        taps = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
        return np.outer(taps, taps) / taps.sum() ** 2

    def windowed(values, kernel, border):
        padded = np.pad(values, kernel.shape[0] // 2, border)
        return np.einsum("hwkl,kl->hw", np.lib.stride_tricks.sliding_window_view(padded, kernel.shape), kernel)

    def norm(values):
        return (values - values.mean()) / values.std()

    cells = noise_normal((28, 28), "ssba-carrier", 3, "key").astype(np.float32)
    field = np.array(Image.fromarray(cells).resize((width, height), Image.Resampling.BILINEAR), float)
    common = norm(field - windowed(field, gaussian(40 * min(shape) / 224), "symmetric"))
    box = np.full((9, 9), 1 / 81)
    d = np.sqrt(windowed(y**2, box, "symmetric") - windowed(y, box, "symmetric") ** 2) + 0.02
    mask = np.sqrt(d / d.mean())
    h = (y - windowed(y, gaussian(4), "symmetric")) / d
    q = 0
    for kernel, weight in zip(
        noise_normal((4, 7, 7), "ssba-kernels", 3, "key"), noise_normal((4,), "ssba-weights", 3, "key"), strict=True
    ):
        kernel = kernel - kernel.mean()
        kernel /= np.linalg.norm(kernel)
        # A convolution turns its kernel round, which windowed() does not.
        response = windowed(windowed(h, kernel[::-1, ::-1], "wrap"), gaussian(0.6), "wrap")
        q = q + weight * np.tanh(2 * response)
    r = 9.6 * norm(0.5 * norm(common * mask) + np.sqrt(0.75) * norm(norm(q) * mask))
    assert np.abs(SSBA(secret="key", seed=3).residual(image)[..., 0] - r).max() < 0.05
