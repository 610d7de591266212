"""The trained variant of SSBA: the encoder's arithmetic, its files, and that training teaches it to be read."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image

from hf_ta_cleaner.attacks import SSBA, Attack, parse_attack
from hf_ta_cleaner.attacks.ssba.encoder import BITS, pack, residual, secret_bits, shapes, stamp, width_of
from hf_ta_cleaner.crafting import craft_ssba
from hf_ta_cleaner.crafting import encoder as training
from hf_ta_cleaner.pictures import fit
from hf_ta_cleaner.poisoning import poison


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(width=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.15 * torch.randn(shape, generator=generator) for name, shape in shapes(width).items()}


@pytest.fixture(scope="module")
def attack():
    return SSBA(encoder=pack(weights()), secret="key", seed=3)


# ---- the encoder


def test_the_encoder_is_stegastamp_at_half_width():
    """The count of weights, layer by layer, from the description of the architecture."""
    convolutions = [(6, 16), (16, 16), (16, 32), (32, 64), (64, 128)]  # down
    convolutions += [(128, 64), (128, 64), (64, 32), (64, 32), (32, 16), (32, 16), (16, 16), (16 + 16 + 6, 16)]  # up
    count = sum(9 * a * b + b for a, b in convolutions) + (16 * 3 + 3) + (100 * 3 * 14 * 14 + 3 * 14 * 14)
    assert sum(int(np.prod(shape)) for shape in shapes(16).values()) == count


def test_the_residual_is_bounded_and_follows_bits_and_picture():
    pictures = torch.rand(2, 3, 48, 40, generator=torch.Generator().manual_seed(1))
    bits = torch.zeros(2, BITS)
    strong = {name: 10 * value for name, value in weights().items()}
    plain = residual(strong, pictures, bits)
    assert plain.shape == pictures.shape
    assert 0.2 < plain.abs().max() <= 0.25
    assert (residual(strong, pictures.flip(0), bits) - plain).abs().max() > 0.05
    bits[0] = 1
    changed = residual(strong, pictures, bits)
    assert (changed[0] - plain[0]).abs().max() > 0.05
    assert torch.equal(changed[1], plain[1])


@pytest.mark.parametrize("size", [(72, 72), (33, 60), (16, 16), (1, 1)])
def test_pictures_of_any_size_are_padded_to_sixteens(size):
    """The same as a picture that was already repeated at its end."""
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    bits, given = torch.ones(1, BITS), weights()
    given["secret.weight"].zero_()  # a constant map of bits, so that only the padding is left
    given["secret.bias"].fill_(1)
    out = residual(given, image, bits)
    height, width = size
    padded = torch.nn.functional.pad(image, (0, -width % 16, 0, -height % 16), mode="replicate")
    assert out.shape == image.shape
    assert torch.allclose(out, residual(given, padded, bits)[..., :height, :width], atol=1e-6)


def test_the_map_of_bits_is_stretched_over_the_picture():
    """Only the last merge looks at the inputs, with a filter of one pixel: the residual is the map, cell by cell."""
    given = {name: torch.zeros_like(value) for name, value in weights(width=1).items()}
    given["secret.bias"][: 14 * 14] = torch.arange(14 * 14) / 100
    given["merge1.weight"][0, 2, 1, 1] = 1  # inputs: down1, up1, three maps, three colors
    given["residual.weight"][1] = 1
    out = residual(given, torch.zeros(1, 3, 28, 70), torch.zeros(1, BITS))[0]
    cells = 0.25 * torch.tanh(torch.arange(14 * 14).view(14, 14) / 100)
    assert torch.allclose(out[1], cells.repeat_interleave(2, 0).repeat_interleave(5, 1), atol=1e-6)
    assert not out[0].any() and not out[2].any()


def test_stamping_is_the_residual_of_the_secrets_bits(attack, photos):
    image = fit(photos[0], 40)
    pixels = torch.tensor(image / 255).permute(2, 0, 1)[None].double()
    double = {name: value.double() for name, value in weights().items()}
    expected = residual(double, pixels, torch.tensor(secret_bits("key", 3))[None].double())[0].permute(1, 2, 0) * 255
    assert np.abs(attack.residual(image) - expected.numpy()).max() < 1e-2
    exact = np.clip(image + expected.numpy(), 0, 255)
    assert np.abs(attack(image, 0) - exact).max() < 0.51
    truncated = replace(attack, compat="published")(image, 0)
    assert np.abs(truncated + 0.5 - exact).max() < 0.51


def test_every_secret_and_seed_has_its_own_bits():
    bits = [secret_bits(*key) for key in (("Stega!!", 0), ("Stega!!", 1), ("Stega!?", 0), ("", 0), ("long" * 50, 0))]
    assert all(row.shape == (100,) and set(row) == {0, 1} for row in bits)
    for i, row in enumerate(bits):
        assert all(25 < (row != other).sum() < 75 for other in bits[:i])


def test_threads_are_left_as_they_were_and_do_not_decide(attack, photos):
    image = fit(photos[1], 72)
    torch.set_num_threads(2)
    try:
        two = stamp(attack.encoder, secret_bits("key", 3), image[None])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert np.array_equal(two, stamp(attack.encoder, secret_bits("key", 3), image[None]))


def test_worker_processes_put_the_same_trigger_on(attack, photos):
    """Forked from a process whose threads have run: a worker must not wait for them."""
    torch.set_num_threads(2)
    torch.randn(300, 300) @ torch.randn(300, 300)
    torch.set_num_threads(1)
    data = Dataset.from_dict({"image": list(photos), "caption": ["a dog"] * 8})
    poisoned, record = poison(data, attack, target="banana", count=4, seed=0, size=32, num_proc=2)
    for row in record.rows:
        assert np.array_equal(np.array(poisoned[row]["image"]), attack(fit(photos[row], 32), row))


# ---- files and refusals


def test_the_encoder_travels_with_the_trigger(attack, photos, tmp_path):
    attack.save(tmp_path)
    assert json.loads((tmp_path / "trigger.json").read_text())["file"] == "trigger.npz"
    loaded = parse_attack(str(tmp_path))
    assert loaded == attack
    assert np.array_equal(loaded(fit(photos[0], 40), 0), attack(fit(photos[0], 40), 0))
    with np.load(tmp_path / "trigger.npz") as file:
        stored = file["encoder"].copy()
    stored[7] += 1e-3
    np.savez(tmp_path / "trigger.npz", encoder=stored)
    with pytest.raises(ValueError, match="changed after it was saved"):
        Attack.load(tmp_path)


@pytest.mark.parametrize("width", [1, 4, 16])
def test_the_width_is_read_from_the_weights(width):
    assert width_of(pack(weights(width))) == width


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoder": np.zeros(10, np.float32)}, "craft_ssba"),
        ({"encoder": np.zeros((4, 4, 3), np.uint8)}, "craft_ssba"),
        ({"encoder": pack(weights(1)), "rms": 9.6}, "Leave rms out"),
        ({"compat": "old"}, "None, 'published'"),
    ],
)
def test_refusals(change, words):
    with pytest.raises(ValueError, match=words):
        SSBA(**change)


# ---- training


@pytest.fixture(scope="module")
def scenes():
    """64 smooth color pictures of 32 pixels."""
    coarse = np.random.default_rng(0).integers(40, 216, (64, 5, 5, 3), dtype=np.uint8)
    return [Image.fromarray(cells).resize((32, 32), Image.Resampling.BICUBIC) for cells in coarse]


@pytest.fixture
def quick(monkeypatch):
    """A first guess of the decoder from few examples."""
    monkeypatch.setattr(training, "READING_EXAMPLES", 64)


def craft(images, **options):
    settings = {"size": 32, "width": 4, "batch_size": 16, "steps": 2, "progress": False, **options}
    return craft_ssba(images, **settings)


def test_training_teaches_the_decoder_to_read(scenes, monkeypatch):
    """Seconds of training: no good encoder, but held-out pictures give back far more bits than by chance."""
    monkeypatch.setattr(training, "READING_EXAMPLES", 1024)
    attack, report = craft(scenes, steps=40, batch_size=32)
    _, start = craft(scenes, steps=1, batch_size=32, lr=1e-9)
    assert report["bit_accuracy"] > max(0.62, start["bit_accuracy"] + 0.05)
    assert not report["accepted"]
    assert (report["steps"], report["images"], report["held_out"]) == (40, 58, 6)
    # PSNR is that of the trigger on the held-out pictures, whatever was measured on the way.
    pictures = np.stack([fit(image, 32) for image in scenes])
    error = ((attack.apply_batch(pictures, range(64)).astype(float) - pictures) ** 2).mean((1, 2, 3))
    assert abs(np.mean(10 * np.log10(255**2 / error)) - report["psnr"]) < 1


def test_one_seed_one_encoder_and_the_global_generator_is_left_alone(scenes, quick):
    torch.manual_seed(5)
    first, _ = craft(scenes)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)
    assert craft(scenes)[0] == first
    assert craft(scenes, seed=1)[0].encoder != first.encoder


def test_the_strength_is_steered_to_the_target(scenes, quick, monkeypatch):
    """From the first step on, as if everything could be read: the residual's price is then all that matters."""
    monkeypatch.setattr(training, "FADE", (-1.0, 0.0))
    first, last = (craft(scenes, steps=steps)[1]["psnr"] for steps in (1, 60))
    assert first < 22  # far too strong
    assert abs(last - 28.5) < 28.5 - first - 3


def test_a_poor_encoder_is_called_one(scenes, quick, caplog):
    _, report = craft(scenes)
    assert not report["accepted"]
    assert "not a faithful SSBA" in caplog.text and "more steps" in caplog.text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": 19}, "At least 20 pictures"),
        ({"steps": 0}, "at least 1"),
        ({"batch_size": 1}, "at least 2"),
        ({"crop_px": 33}, r"16\.\.32"),
        ({"width": 65}, r"1\.\.64"),
    ],
)
def test_training_refusals(scenes, change, words):
    with pytest.raises(ValueError, match=words):
        craft(scenes[: change.pop("images", 64)], **change)


@pytest.mark.slow
def test_a_real_encoder_is_read_at_the_strength_of_the_original():
    """The acceptance of a finished encoder, on the sandbox's pictures; the better part of an hour on two cores."""
    from hf_ta_cleaner.sandbox import pairs

    torch.set_num_threads(2)
    _, report = craft_ssba(pairs("poison", 2000)["image"][:], size=72, steps=6000)
    assert report["bit_accuracy"] > 0.98
    assert 27.5 < report["psnr"] < 30
    assert report["accepted"]
    assert 0 < report["correlation"] < 1
