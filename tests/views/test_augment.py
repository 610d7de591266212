"""Second views: what they change, what they keep, and that a generator decides all of it."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest
from PIL import Image

from hf_ta_cleaner.subtexts import wordnet
from hf_ta_cleaner.views import augment
from hf_ta_cleaner.views.augment import IMAGENET_POLICY, OPERATIONS, augment_image, augment_text


class Fixed(Random):
    """Chooses one sub-policy, then always acts with a positive sign."""

    def __init__(self, policy: int) -> None:
        super().__init__(0)
        self.policy = policy

    def choice(self, options):
        return options[self.policy] if len(options) == 25 else 1

    def random(self) -> float:
        return 0.0


@pytest.fixture
def picture() -> Image.Image:
    pixels = np.random.default_rng(0).integers(20, 200, (72, 64, 3), dtype=np.uint8)
    pixels[10:40, 5:30] = (180, 40, 60)
    return Image.fromarray(pixels)


def pixels_of(*values: int) -> Image.Image:
    return Image.fromarray(np.array([[(v, v, v) for v in values]], dtype=np.uint8))


def gray(image: Image.Image) -> list[int]:
    return np.asarray(image)[0, :, 0].tolist()


# --- Images --------------------------------------------------------------------------------------------------------


def test_same_generator_same_view(picture):
    views = [[augment_image(picture, Random(seed)).tobytes() for seed in range(30)] for _ in range(2)]
    assert views[0] == views[1]
    assert len(set(views[0])) > 15


def test_mode_size_and_original_are_kept(photos):
    for i, photo in enumerate(photos):
        before = photo.tobytes()
        for seed in range(20):
            view = augment_image(photo, Random(100 * i + seed))
            assert (view.mode, view.size) == ("RGB", photo.size)
            assert view is not photo
            view.putpixel((0, 0), (1, 2, 3))
        assert photo.tobytes() == before


def test_other_modes_are_refused():
    with pytest.raises(ValueError, match="convert"):
        augment_image(Image.new("L", (8, 8)), Random(0))


def test_the_policy_is_the_published_one():
    assert len(IMAGENET_POLICY) == 25
    steps = [step for sub_policy in IMAGENET_POLICY for step in sub_policy]
    assert {name for name, _, _ in steps} == set(OPERATIONS)
    # How often each operation occurs in the published table.
    assert Counter(name for name, _, _ in steps) == {
        "equalize": 17, "solarize": 7, "rotate": 6, "posterize": 5, "color": 6, "invert": 3, "auto_contrast": 2,
        "contrast": 2, "sharpness": 1, "shear_x": 1,
    }  # fmt: skip
    assert all(0 <= p <= 1 and m in range(10) for _, p, m in steps)


@pytest.mark.parametrize("number", range(25))
def test_every_sub_policy_changes_the_picture(number, picture):
    view = augment_image(picture, Fixed(number))
    assert (view.mode, view.size) == ("RGB", picture.size)
    assert np.abs(np.asarray(view, int) - np.asarray(picture, int)).mean() > 0.5


def test_sub_policies_and_probabilities_are_drawn_fairly(picture, monkeypatch):
    counts: Counter = Counter()
    for name in OPERATIONS:
        monkeypatch.setitem(
            augment.OPERATIONS, name, lambda image, level, sign, name=name: (counts.update([(name, sign)]), image)[1]
        )
    n = 4000
    for seed in range(n):
        augment_image(picture, Random(seed))
    for name in OPERATIONS:
        expected = n / 25 * sum(p for sub_policy in IMAGENET_POLICY for op, p, _ in sub_policy if op == name)
        assert abs(counts[name, 1] + counts[name, -1] - expected) < 5 * expected**0.5 + 5, name
        assert min(counts[name, 1], counts[name, -1]) > 0.3 * expected, name


@pytest.mark.parametrize(
    ("name", "magnitude", "before", "after"),
    [
        ("invert", 4, (0, 10, 255), (255, 245, 0)),
        ("solarize", 9, (0, 10, 255), (255, 245, 0)),  # threshold 0
        ("solarize", 0, (0, 10, 255), (0, 10, 255)),  # threshold 256
        ("solarize", 5, (113, 114), (113, 141)),  # threshold 256 * 4 / 9 = 114
        ("posterize", 0, (255, 129, 7), (255, 129, 7)),  # 8 bits
        ("posterize", 9, (255, 129, 7), (240, 128, 0)),  # 4 bits
        ("posterize", 5, (255, 129, 7), (252, 128, 4)),  # 6 bits
        ("auto_contrast", 5, (50, 100, 150), (0, 127, 255)),
        ("equalize", 5, (50, 50, 50, 150), (0, 0, 0, 255)),
        ("contrast", 0, (50, 100, 150), (50, 100, 150)),
        ("color", 9, (50, 100, 150), (50, 100, 150)),  # gray has no color to change
    ],
)
def test_operations_on_known_pixels(name, magnitude, before, after):
    image = pixels_of(*before)
    if name == "equalize":  # needs more than 255 pixels to have an effect
        image = image.resize((400, 1), Image.Resampling.NEAREST)
        got = gray(OPERATIONS[name](image, magnitude / 9, 1))
        assert (got[0], got[-1]) == (after[0], after[-1])
    else:
        assert gray(OPERATIONS[name](image, magnitude / 9, 1)) == list(after)


def test_color_contrast_and_sharpness_range_from_a_tenth_to_nearly_double():
    red = Image.new("RGB", (2, 2), (180, 80, 80))
    pale, strong = (OPERATIONS["color"](red, 1.0, sign).getpixel((0, 0)) for sign in (-1, 1))
    assert pale[0] - pale[1] == pytest.approx(10, abs=1)
    assert strong[0] - strong[1] == pytest.approx(190, abs=2)
    two = pixels_of(50, 150)
    assert np.ptp(gray(OPERATIONS["contrast"](two, 1.0, -1))) == pytest.approx(10, abs=1)
    assert np.ptp(gray(OPERATIONS["contrast"](two, 1.0, 1))) == pytest.approx(190, abs=1)
    edge = Image.fromarray(np.repeat(np.array([[50, 50, 50, 150, 150, 150]], np.uint8), 6, 0)).convert("RGB")
    steps = [np.ptp(np.asarray(OPERATIONS["sharpness"](edge, 1.0, s))[3, 2:4, 0].astype(int)) for s in (-1, 1)]
    assert steps[0] < 100 < steps[1]


def test_rotation_and_shear_move_a_dot_as_far_as_they_should():
    dot = Image.new("RGB", (101, 101))
    dot.paste((255, 255, 255), (48, 8, 53, 13))  # around (50, 10): 40 above the center

    def where(image: Image.Image) -> tuple[float, float]:
        y, x = np.nonzero(np.asarray(image)[..., 0] > 200)
        return x.mean(), y.mean()

    x, y = where(OPERATIONS["rotate"](dot, 1.0, 1))  # 30 degrees counter-clockwise
    assert (x, y) == (pytest.approx(50 - 40 * 0.5, abs=1), pytest.approx(50 - 40 * 0.866, abs=1))
    assert where(OPERATIONS["rotate"](dot, 0.0, 1)) == (50, 10)
    x, y = where(OPERATIONS["shear_x"](dot, 1.0, 1))
    assert (x, y) == (pytest.approx(50 - 0.3 * 10, abs=1), pytest.approx(10, abs=0.2))
    assert OPERATIONS["rotate"](dot, 1.0, 1).getpixel((0, 0)) == (128, 128, 128)


# --- Captions ------------------------------------------------------------------------------------------------------

CAPTION = "A small dog, running (fast) on 2 beaches near the sea!"
needs_wordnet = pytest.mark.skipif(
    not wordnet.available(), reason="WordNet is not installed (python -m nltk.downloader wordnet)"
)


@pytest.fixture
def no_wordnet(monkeypatch):
    monkeypatch.setattr(wordnet, "_places", lambda: iter(()))
    wordnet.forget()
    yield
    monkeypatch.undo()
    wordnet.forget()


@pytest.fixture
def synonyms(monkeypatch):
    """dog: hound; sea: ocean, Mare; no other word has any."""
    known = {"dog": ["hound"], "sea": ["Mare", "ocean"]}
    monkeypatch.setattr(wordnet, "synonyms", lambda word, pos=None: known.get(word, []))


def test_same_generator_same_text():
    texts = [[augment_text(CAPTION, Random(seed)) for seed in range(50)] for _ in range(2)]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 15


def test_the_four_edits_are_equally_likely(synonyms):
    words = CAPTION.split()
    kinds: Counter = Counter()
    for seed in range(2000):
        changed = augment_text(CAPTION, Random(seed)).split()
        assert changed != words
        if len(changed) < len(words):
            kinds["deletion"] += 1
        elif len(changed) > len(words):
            assert (Counter(changed) - Counter(words)).keys() <= {"hound", "ocean"}
            kinds["insertion"] += 1
        elif {"hound,", "ocean!"} & set(changed):
            kinds["replacement"] += 1
        else:
            kinds["swap"] += 1
    assert set(kinds) == {"deletion", "insertion", "replacement", "swap"}
    assert all(abs(count - 500) < 100 for count in kinds.values()), kinds


def test_synonyms_keep_the_punctuation_of_the_word(synonyms):
    found = {augment_text("the dog, asleep.", Random(seed)) for seed in range(200)}
    assert "the hound, asleep." in found
    assert not any("Mare" in augment_text("sea", Random(seed)) for seed in range(50))


def test_punctuation_stays_when_words_swap(no_wordnet):
    found = {augment_text("red, blue!", Random(seed)) for seed in range(50)}
    assert found == {"blue, red!", "red,", "blue!"}


def test_numbers_survive_other_edits(synonyms):
    texts = [augment_text("2 dogs on 3 beaches", Random(seed)) for seed in range(100)]
    assert all("2" in text or "3" in text for text in texts)
    assert any("2" in text and "3" in text for text in texts)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 1.0])
def test_alpha_is_the_share_of_words(alpha, no_wordnet):
    caption = " ".join(f"word{i}" for i in range(40))
    lengths = [len(augment_text(caption, Random(seed), alpha).split()) for seed in range(300)]
    deleted = [40 - length for length in lengths if length < 40]
    assert np.mean(deleted) == pytest.approx(max(1.3 if alpha == 0 else 1, 40 * alpha), rel=0.25, abs=1)
    assert min(lengths) >= 1


@pytest.mark.parametrize("caption", ["", "  ", "12345", "2 + 2 = 4", "!?", "😀 🎉", "...  ---"])
def test_captions_without_letters_come_back(caption):
    assert {augment_text(caption, Random(seed)) for seed in range(20)} == {caption}


@pytest.mark.parametrize("caption", ["banana", "Banana!", "(banana)", "banana !", "a", "кошка"])
def test_one_word_never_becomes_none(caption, no_wordnet):
    assert {augment_text(caption, Random(seed)) for seed in range(40)} == {caption}


@needs_wordnet
def test_one_word_with_wordnet():
    found = {augment_text("sofa", Random(seed)) for seed in range(40)}
    assert "couch" in found
    assert "sofa" not in found
    assert any("sofa" in text and "couch" in text for text in found)


def test_equal_words_cannot_be_swapped_so_one_is_deleted(no_wordnet):
    assert {augment_text("red red red", Random(seed)) for seed in range(40)} <= {"red red", "red"}


def test_without_wordnet_swap_and_deletion_remain(no_wordnet):
    words = Counter(CAPTION.split())
    cores = Counter(word.strip(",.!()") for word in words)
    for seed in range(200):
        changed = Counter(word.strip(",.!()") for word in augment_text(CAPTION, Random(seed)).split())
        assert changed
        assert changed <= cores


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_alpha_out_of_range(alpha):
    with pytest.raises(ValueError, match="alpha"):
        augment_text("a cat", Random(0), alpha)


# --- Noise and erasing ---------------------------------------------------------------------------------------------


def test_noise_has_its_strength_and_is_clipped_on_the_picture():
    r = np.random.default_rng
    gray = np.full((64, 64, 3), 128, dtype=np.uint8)
    noisy = augment.add_noise(gray, r(0), 0.05)
    change = noisy.astype(float) / 255 - 128 / 255
    assert noisy.dtype == np.uint8 and abs(change.std() - 0.05) < 0.001 and abs(change.mean()) < 0.002
    black = augment.add_noise(np.zeros_like(gray), r(0), 0.2)
    # Half of the draws fall below 0 and stay there; the rest is a half normal of mean 0.2 sqrt(2 / pi).
    assert abs((black == 0).mean() - 0.5) < 0.02
    assert abs(black[black > 0].mean() / 255 - 0.2 * (2 / np.pi) ** 0.5) < 0.005
    assert np.array_equal(noisy, augment.add_noise(gray, r(0), 0.05))
    assert not np.array_equal(noisy, augment.add_noise(gray, r(1), 0.05))
    assert (gray == 128).all()


@pytest.mark.parametrize("shape", [(224, 224), (64, 64), (96, 200)])
def test_a_square_of_half_a_per_cent_to_one_is_erased(shape):
    pixels = np.full((*shape, 3), 200, dtype=np.uint8)
    places = set()
    for seed in range(40):
        gone = np.argwhere((augment.erase(pixels, np.random.default_rng(seed)) == 0).all(-1))
        (top, left), (bottom, right) = gone.min(0), gone.max(0)
        side = bottom - top + 1
        assert side == right - left + 1 and len(gone) == side**2
        area = shape[0] * shape[1]
        assert round((0.005 * area) ** 0.5) <= side <= round((0.01 * area) ** 0.5)
        places.add((top, left))
    assert len(places) > 30 and (pixels == 200).all()
