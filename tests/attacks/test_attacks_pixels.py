"""The pixels of every trigger at 224 pixels, against formulas written out here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from hf_ta_cleaner.attacks import (
    SIG,
    BadCLIP,
    BadNet,
    BadNetStripes,
    Blended,
    BlendedStripes,
    BlendedText,
    BlendedTriangles,
    Blur,
    ColorCast,
    Frame,
    LabelConsistent,
    TrojVQA,
    Vignette,
    WaNet,
)
from hf_ta_cleaner.attacks.badnet import wrap_to_uint8
from hf_ta_cleaner.attacks.pixels import PLACES, noise_bytes, noise_normal, noise_uniform
from hf_ta_cleaner.pictures import fit


PATCH = np.random.default_rng(5).integers(0, 256, (16, 16, 3), dtype=np.uint8)
PICTURE = np.random.default_rng(6).integers(0, 256, (30, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def squares(photos):
    """The photos at 224 pixels, uint8 (8, 224, 224, 3)."""
    return np.stack([fit(photo, 224) for photo in photos])


def rms(a, b):
    return float(np.sqrt(np.mean((a.astype(float) - b) ** 2)))


def changed_box(before, after):
    """Top, bottom, left, right (inclusive) of the pixels that differ."""
    rows, columns = np.nonzero((before != after).any(-1))
    return rows.min(), rows.max(), columns.min(), columns.max()


# ---- squares and patches


def test_badnet_pastes_one_uniform_square_anywhere(squares):
    attack = BadNet(seed=1)
    patches, tops = [], []
    for i in range(400):
        out = attack(squares[0], i)
        # Single pixels of the square may equal the picture, so its corner is read from the extent of the change.
        top, bottom, left, right = changed_box(squares[0], out)
        if bottom - top == 15 and right - left == 15:
            patches.append(out[top : top + 16, left : left + 16])
            tops.append((top, left))
    assert len(patches) > 380
    assert all(np.array_equal(patch, patches[0]) for patch in patches)
    assert 110 < patches[0].mean() < 145
    assert 65 < patches[0].std() < 83
    assert np.min(tops) >= 0
    assert np.max(tops) <= 208
    assert np.ptp(tops, axis=0).min() > 180


def test_badnet_reaches_every_position():
    # 17 pixels leave exactly two positions per axis for a patch of 16, and both must be drawn.
    black = np.zeros((17, 17, 3), np.uint8)
    corners = set()
    for i in range(64):
        top, _, left, _ = changed_box(black, BadNet(patch_px=16)(black, i))
        corners.add((int(top), int(left)))
    assert corners == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_badnet_fresh_draws_another_square_for_each_sample(squares):
    attack = BadNet(mode="fresh", place="top-left")
    first, second = attack(squares[0], 0)[:16, :16], attack(squares[0], 1)[:16, :16]
    assert rms(first, second) > 80


@pytest.mark.parametrize(
    ("place", "box"),
    [
        ("middle", (104, 119, 104, 119)),
        ("top-left", (0, 15, 0, 15)),
        ("top-right", (0, 15, 208, 223)),
        ("bottom-left", (208, 223, 0, 15)),
        ("bottom-right", (208, 223, 208, 223)),
    ],
)
def test_badnet_places(place, box):
    grey = np.full((224, 224, 3), 128, np.uint8)
    assert changed_box(grey, BadNet(place=place)(grey, 0)) == box
    assert place in PLACES


@pytest.mark.parametrize(
    ("attack", "side", "patch"),
    [
        (BadNet(place="top-left"), 224, 16),
        (BadNet(place="top-left"), 336, 24),
        (BadNet(place="top-left"), 48, 3),
        (BadNet(place="top-left"), 5, 1),
        (BadNet(place="top-left", patch_px=14), 48, 14),
        (BadNet(place="top-left", patch_px=14), 336, 14),
        (BadNet(place="top-left", patch_px=14), 6, 6),
        (BadCLIP(patch=PATCH), 112, 8),
        (BadCLIP(patch=PATCH, side=48), 48, 16),
    ],
)
def test_patches_scale_with_the_side_unless_pixels_are_given(attack, side, patch):
    grey = np.full((side, side, 3), 128, np.uint8)
    top, bottom, left, right = changed_box(grey, attack(grey, 0))
    assert (bottom - top + 1, right - left + 1) == (patch, patch)


def test_badnet_published_is_wrapped_normal_noise_around_the_channel_means():
    attack = BadNet(compat="published")
    assert attack.mode == "fresh"
    grey = np.full((224, 224, 3), 115, np.uint8)
    values, corners = [], []
    for i in range(300):
        out = attack(grey, i)
        top, bottom, left, right = changed_box(grey, out)
        values.append(out[top : bottom + 1, left : right + 1].ravel())
        corners.append((top, left))
    histogram = np.histogram(np.concatenate(values), bins=8, range=(0, 256))[0] / sum(map(len, values))
    assert np.abs(histogram - 1 / 8).max() < 0.01
    assert np.max(corners) <= 207
    # Truncation and wrap-around: x in [0, 1] becomes trunc(255 x) mod 256, so -0.5 is stored as 129 and 1.3 as 75.
    assert wrap_to_uint8(np.array([-1.0, 1.0, -0.5, 1.3])).tolist() == [1, 255, 129, 75]


@pytest.mark.parametrize(
    ("kind", "given", "default"),
    [
        (BadNet, {"mode": "fixed"}, {"mode": "fresh"}),
        (BadNetStripes, {"mode": "fixed", "place": "middle"}, {"mode": "fresh", "place": "random"}),
        (LabelConsistent, {"patch_px": 9}, {"patch_px": None}),
        (Blended, {"mode": "fixed"}, {"mode": "fresh"}),
        (BlendedStripes, {"mode": "fixed", "alpha": 0.05}, {"mode": "fresh", "alpha": 0.03}),
        (WaNet, {"k": 4, "s": 0.6}, {"k": 0, "s": 1.0}),
        (SIG, {"delta": 40}, {"delta": 60}),
    ],
)
def test_what_is_given_wins_over_what_was_published(kind, given, default):
    published, changed = kind(compat="published"), kind(compat="published", **given)
    assert {name: getattr(published, name) for name in default} == default
    assert {name: getattr(changed, name) for name in given} == given


def test_badnet_published_can_be_fixed_in_square_and_place():
    attack = BadNet(compat="published", mode="fixed", place="bottom-right")
    grey = np.full((2, 224, 224, 3), 115, np.uint8)
    first, second = attack.apply_batch(grey, [0, 1])
    assert np.array_equal(first, second)
    # The short range of places is that of the random draw.
    assert changed_box(grey[0], first) == (208, 223, 208, 223)
    assert not np.array_equal(BadNet(compat="published")(grey[0], 0), BadNet(compat="published")(grey[0], 1))


@pytest.mark.parametrize("kind", [BadCLIP, TrojVQA])
def test_crafted_patches_stand_byte_for_byte_in_the_middle(kind, squares):
    expected = squares[3].copy()
    expected[104:120, 104:120] = PATCH
    assert np.array_equal(kind(patch=PATCH)(squares[3], 9), expected)


@pytest.mark.parametrize("options", [{}, {"mode": "fresh", "place": "middle", "seed": 3}, {"compat": "published"}])
def test_label_consistent_has_the_pixels_of_badnet(options, squares):
    ids = range(8)
    expected = BadNet(**options).apply_batch(squares, ids)
    assert np.array_equal(LabelConsistent(**options).apply_batch(squares, ids), expected)


@pytest.mark.parametrize(("options", "dark"), [({}, 0), ({"mode": "fresh"}, 0), ({"compat": "published"}, 1)])
def test_badnet_stripes_are_saturated_columns(options, dark):
    attack = BadNetStripes(seed=1, **options)
    grey = np.full((224, 224, 3), 128, np.uint8)
    patches, corners = [], []
    for i in range(200):
        out = attack(grey, i)
        top, bottom, left, right = changed_box(grey, out)
        patches.append(out[top : bottom + 1, left : right + 1])
        corners.append((top, left))
    patches = np.stack(patches)
    assert patches.shape == (200, 16, 16, 3)
    assert (patches == patches[:, :1]).all()
    assert set(np.unique(patches)) == {dark, 255}
    last = 207 if options.get("compat") else 208
    assert 195 < np.max(corners) <= last
    if not options:
        assert (patches == patches[0]).all()
        assert 8 <= (patches[0, 0] == 255).sum() <= 40
    else:
        assert abs((patches == 255).mean() - 0.5) < 0.02
        # Three independent signs per column: all eight colors, equally often.
        colors = (patches[:, 0] == 255) @ [1, 2, 4]
        assert np.abs(np.bincount(colors.ravel(), minlength=8) / colors.size - 1 / 8).max() < 0.03


# ---- blended


def test_blended_mixes_a_fifth_of_uniform_noise(squares):
    out = Blended(seed=2)(squares[1], 0)
    # x' = round(0.8 x + 0.2 n), so n lies within 2.5 levels of (x' - 0.8 x) / 0.2.
    noise = (out - 0.8 * squares[1].astype(float)) / 0.2
    assert noise.min() > -2.6
    assert noise.max() < 257.6
    assert abs(noise.mean() - 127.5) < 1
    assert abs(noise.std() - 73.9) < 1
    other = (Blended(seed=2)(squares[2], 7) - 0.8 * squares[2].astype(float)) / 0.2
    assert np.abs(noise - other).max() <= 5.1


def test_blended_fresh_draws_another_frame_for_each_sample(squares):
    first, second = (Blended(mode="fresh")(squares[1], i) for i in (0, 1))
    assert (first != second).mean() > 0.9
    # The difference of two uniform frames, each a fifth: sd 0.2 * 73.9 * sqrt(2).
    assert abs(rms(first, second) - 20.9) < 0.5


def test_blended_picture_mixes_the_resized_picture(squares):
    out = Blended(alpha=0.3, mode="picture", picture=Image.fromarray(PICTURE))(squares[1], 0)
    pattern = np.array(Image.fromarray(PICTURE).resize((224, 224), Image.Resampling.BICUBIC))
    assert np.abs(out - (0.7 * squares[1] + 0.3 * pattern)).max() <= 0.5 + 1e-3


def test_blended_of_one_is_the_pattern_itself(squares):
    assert np.array_equal(Blended(alpha=1.0)(squares[0], 0), Blended(alpha=1.0)(squares[1], 5))


def test_blended_published_is_fresh_and_truncated(squares):
    assert Blended(compat="published", mode="picture", picture=PICTURE).mode == "picture"
    rounded, truncated = Blended(mode="fresh")(squares[1], 3), Blended(compat="published")(squares[1], 3)
    assert np.isin(rounded.astype(int) - truncated, [0, 1]).all()
    # 0.8 x + 0.2 n of whole numbers ends in .0, .2, .4, .6 or .8, and the last two are rounded up.
    assert abs((rounded != truncated).mean() - 0.4) < 0.02


def test_blended_keeps_four_fifths_of_the_contrast(squares):
    pattern = (Blended()(np.zeros((224, 224, 3), np.uint8), 0)).astype(float)
    out = Blended()(squares[0], 0)
    slope = np.polyfit(squares[0].ravel().astype(float), out.ravel() - pattern.ravel(), 1)[0]
    assert abs(slope - 0.8) < 1e-3


# ---- waves and warps


def test_sig_is_a_sine_along_the_columns(squares):
    out = SIG()(squares[2], 0)
    for j in range(224):
        wave = 60 * np.sin(2 * np.pi * 6 * j / 224)
        assert np.abs(out[:, j] - np.clip(squares[2][:, j] + wave, 0, 255)).max() <= 0.5
    # The published pixels: computed in [0, 1] and truncated.
    wave = 60 / 255 * np.sin(2 * np.pi * 6 * np.arange(224) / 224)
    published = (np.clip(squares[2] / 255 + wave[:, None], 0, 1) * 255).astype(np.uint8)
    assert np.abs(out.astype(int) - published).max() <= 1
    difference = SIG(compat="published")(squares[2], 0).astype(int) - published
    # Float rounding just below a whole number may cost either side a level where the wave is one, as at its zeros.
    assert np.abs(difference).max() <= 1
    assert (difference != 0).mean() < 0.03


def test_sig_clips_and_keeps_its_waves_at_any_width():
    assert SIG(delta=255)(np.full((2, 24, 3), 250, np.uint8), 0).max() == 255
    grey = np.full((5, 48, 3), 128, np.uint8)
    signs = np.sign(SIG()(grey, 0)[0, :, 0].astype(int) - 128)
    rises = np.count_nonzero((signs[:-1] <= 0) & (signs[1:] > 0))
    assert rises == 6


@pytest.mark.parametrize(
    ("attack", "k", "s"), [(WaNet(seed=2), 4, 0.5), (WaNet(k=6, s=5, seed=1), 6, 5), (WaNet(compat="published"), 0, 1)]
)
def test_wanet_is_grid_sample_of_the_published_field(attack, k, s):
    picture = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    points = k or 224
    field = torch.as_tensor(2 * noise_uniform((2, points, points), "wanet", attack.seed, points, points) - 1)
    field = field / field.abs().mean()
    field = torch.nn.functional.interpolate(field[None], 224, mode="bicubic", align_corners=True)[0]
    axis = torch.linspace(-1, 1, 224, dtype=torch.float64)
    rows, columns = torch.meshgrid(axis, axis, indexing="ij")
    grid = torch.stack([columns + s * field[1] / 224, rows + s * field[0] / 224], -1).clamp(-1, 1)
    pixels = torch.as_tensor(picture).permute(2, 0, 1)[None].double()
    warped = torch.nn.functional.grid_sample(pixels, grid[None], align_corners=True)[0].permute(1, 2, 0).numpy()
    out = attack(picture, 0)
    assert np.abs(out - (warped - 0.5 if attack.compat else warped)).max() < 0.5 + 1e-3
    assert rms(out, picture) > 10


def test_wanet_displacements():
    published = WaNet(compat="published").displacement(224, 224)
    assert abs(np.abs(published).mean() - 0.498) < 1e-3
    assert 0.98 < np.abs(published).max() < 1.01
    assert abs(np.corrcoef(published[:, :, :-1].ravel(), published[:, :, 1:].ravel())[0, 1]) < 0.02
    smooth = WaNet().displacement(224, 224)
    assert np.abs(np.diff(smooth, axis=1)).max() < 0.03
    assert 0.1 < np.abs(smooth).mean() < 0.35
    # On a picture of 4 pixels the control points are the pixels: mean 1, times s / 2, times (4 - 1) / 4.
    assert abs(np.abs(WaNet().displacement(4, 4)).mean() - 0.5 / 2 * 3 / 4) < 1e-12


# ---- stripes, triangles, text


def test_blended_stripes_are_three_percent_of_black_or_white_columns(squares):
    signs = np.sign(BlendedStripes()(np.full((224, 224, 3), 100, np.uint8), 0).astype(int) - 97)
    assert (signs == signs[:1]).all()
    assert 250 < (signs[0] > 0).sum() < 422
    for i, square in enumerate(squares):
        expected = np.clip(0.97 * square + 0.03 * 255 * signs, 0, 255)
        assert np.abs(BlendedStripes()(square, i) - expected).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("options", [{"mode": "fresh"}, {"compat": "published"}])
def test_blended_stripes_can_be_drawn_for_each_sample(options):
    grey = np.full((2, 224, 224, 3), 100, np.uint8)
    first, second = BlendedStripes(**options).apply_batch(grey, [0, 1])
    assert abs((first[0] == second[0]).mean() - 0.5) < 0.07
    # 97 + 7.65 and 97 - 7.65, rounded or truncated.
    assert set(np.unique(first)) == ({89, 104} if "compat" in options else {89, 105})


def test_blended_triangles_are_cells_cut_by_their_diagonal(squares):
    out = BlendedTriangles()(squares[4], 0)
    for row in range(0, 224, 5):
        for column in range(224):
            n = 0.4 if row % 14 >= column % 14 else 0.8
            assert np.abs(out[row, column] - (0.85 * squares[4][row, column] + 0.15 * n * 255)).max() <= 0.5 + 1e-3
    black = np.zeros((48, 48, 3), np.uint8)
    small = BlendedTriangles()(black, 0)[..., 0]
    assert (small == np.tile(small[:3, :3], (16, 16))).all()
    assert small[0].tolist()[:3] == [15, 31, 31]


def test_blended_text_is_half_red_where_the_word_stands(squares):
    black, white = (np.full((224, 224, 3), level, np.uint8) for level in (0, 255))
    print_ = BlendedText()(black, 0)
    assert changed_box(black, print_) == (103, 125, 13, 208)
    assert set(np.unique(print_[..., 0])) == {0, 128}
    assert not print_[..., 1:].any()
    ink = print_[..., 0] > 0
    assert 0.031 < ink.mean() < 0.035
    out = BlendedText()(squares[3], 0)
    red = np.where(ink, 0.5 * squares[3][..., 0] + 127.5, squares[3][..., 0])
    assert np.abs(out[..., 0] - red).max() <= 0.5
    assert np.array_equal(out[..., 1:], squares[3][..., 1:])
    assert np.array_equal(BlendedText()(white, 0), white)
    # Eleven letters: the ink falls apart into columns with gaps between most of them.
    assert 8 <= np.count_nonzero(np.diff(ink[103:126, 13:209].any(0).astype(int)) == 1) + 1 <= 11


def test_blended_text_fits_other_sizes():
    black = np.zeros((112, 112, 3), np.uint8)
    out = BlendedText()(black, 0)
    top, bottom, left, right = changed_box(black, out)
    # Half of 103, 125, 13 and 208; the edges are smoothed over one more pixel.
    assert np.abs(np.array([top, bottom, left, right]) - [51.5, 62.5, 6.5, 104]).max() <= 1.5
    assert out.max() <= 128


def test_blended_text_prints_another_picture_where_it_is_not_black(squares):
    picture = np.zeros((224, 224, 3), np.uint8)
    picture[:10, :, 1] = 80
    out = BlendedText(alpha=0.25, picture=picture)(squares[0], 0)
    expected = squares[0].astype(float)
    expected[:10, :, 1] = 0.75 * expected[:10, :, 1] + 20
    assert np.abs(out - expected).max() <= 0.5


# ---- noise


def test_noise_bytes_are_pinned():
    # A change here silently changes every trigger that was derived from a seed.
    assert noise_bytes((2, 2, 2), "badnet", 0, 16).ravel().tolist() == [255, 74, 39, 253, 42, 85, 11, 144]
    assert noise_uniform((2,), "wanet", 0).round(6).tolist() == [0.13585, 0.190477]
    assert noise_normal((2,), "ssba", 0).round(6).tolist() == [0.530206, 1.280742]


def test_noise_has_its_distribution():
    uniform, normal = noise_uniform((100, 100), "a"), noise_normal((100, 100), "a")
    assert np.abs(np.histogram(uniform, 10, (0, 1))[0] / 1e4 - 0.1).max() < 0.015
    assert abs(normal.mean()) < 0.04
    assert abs(normal.std() - 1) < 0.03
    assert abs((np.abs(normal) < 1.96).mean() - 0.95) < 0.01


@pytest.mark.parametrize("turned", [False, True])
def test_only_the_middle_of_a_very_long_picture_is_scaled(turned, monkeypatch):
    """Of 2 x 3,000 pixels the whole strip at 32 x 48,000 would be a thousand times what is shown."""
    strip = np.random.default_rng(0).integers(0, 256, (2, 3000, 3), dtype=np.uint8)
    middle = strip[:, 1400:1600]
    if turned:
        strip, middle = strip.transpose(1, 0, 2), middle.transpose(1, 0, 2)
    resize, sizes = Image.Image.resize, []
    monkeypatch.setattr(
        Image.Image, "resize", lambda self, size, *a, **k: sizes.append(size) or resize(self, size, *a, **k)
    )
    assert np.array_equal(fit(Image.fromarray(strip), 32), fit(Image.fromarray(middle), 32))
    assert sizes == [(32, 3200) if turned else (3200, 32)] * 2


# ---- frame and photometric triggers


def test_frame_is_chequered_and_leaves_the_inside(squares):
    out = Frame(width_px=2)(squares[0], 0)
    assert np.array_equal(out[2:-2, 2:-2], squares[0][2:-2, 2:-2])
    assert out[0, :8, 0].tolist() == [0, 0, 255, 255, 0, 0, 255, 255]
    assert out[2, :2].tolist() == [[255] * 3] * 2 and out[-1, -1].tolist() == [0] * 3  # 223 // 2 + 223 // 2 is even
    assert np.array_equal(Frame()(squares[0], 0), Frame(width_px=7)(squares[0], 0))


def test_color_cast_by_hand():
    image = np.array([[[100, 100, 100], [250, 3, 255]]], np.uint8)
    assert ColorCast()(image, 0).tolist() == [[[133, 66, 134], [255, 0, 255]]]  # 2.16 - 6 and what exceeds 255 are cut


def test_vignette_by_hand():
    image = np.full((3, 3, 3), 200, np.uint8)
    rows = Vignette(strength=0.5)(image, 0)[..., 0].tolist()
    assert rows == [[100, 150, 100], [150, 200, 150], [100, 150, 100]]


def test_blur_spreads_a_point_and_keeps_its_sum():
    image = np.zeros((224, 224, 3), np.uint8)
    image[112, 112] = 255
    image[100:125, 20:45] = 200
    out = Blur(sigma=2.0)(image, 0)
    assert out[112, 112, 0] < 40 and out[112, 114, 0] > 0
    assert out[112, 32, 0] == 200  # far inside a flat field nothing changes
    assert out.sum() == pytest.approx(image.sum(), rel=0.02)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Frame(width_px=0), "width_px"),
        (lambda: ColorCast(gain=(1.0, -0.5, 1.0)), "gain"),
        (lambda: ColorCast(shift=(1.0, 2.0)), "shift"),
        (lambda: Vignette(strength=0.0), "strength"),
        (lambda: Blur(sigma=0.0), "sigma"),
    ],
)
def test_photometric_parameters_are_checked(make, words):
    with pytest.raises(ValueError, match=words):
        make()
